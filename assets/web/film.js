// The finished clip. It comes by the clips' own route, wherever on this machine the outputs lie, and plays by itself.
const place = element.querySelector('.tr-film');
let shown = '';

const film = ({ id, poster }) => {
  const made = document.createElement('video');
  Object.assign(made, { controls: true, autoplay: true, loop: true, muted: true, playsInline: true });
  made.setAttribute('aria-label', 'Your clip');
  if (poster) made.poster = 'clips/' + id + '/poster';  // relative: the page may lie below another path
  made.src = 'clips/' + id + '/clip';
  made.addEventListener('error', () => { if (shown === id) place.replaceChildren(lost()); });
  return made;
};

const lost = () => {
  const line = document.createElement('p'), again = document.createElement('button');
  line.className = 'tr-message bad';
  line.setAttribute('role', 'alert');
  line.textContent = 'This clip cannot be shown. It was moved or deleted, or Troupe does not answer. ';
  again.type = 'button';
  again.className = 'tr-do';
  again.textContent = 'Try again';
  again.addEventListener('click', () => place.replaceChildren(film(props.value)));
  line.append(again);
  return line;
};

function draw() {
  const id = props.value?.id || '';
  if (id === shown) return;
  shown = id;
  place.replaceChildren(...(id ? [film(props.value)] : []));
}

watch('value', draw);
draw();
