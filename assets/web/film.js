// The finished clip. It comes by the clips' own route, wherever on this machine the outputs lie, and plays by itself.
const place = element.querySelector('.tr-film');
let film = null, shown = '', again = 0;

function make() {
  film = document.createElement('video');
  Object.assign(film, { controls: true, autoplay: true, loop: true, muted: true, playsInline: true });
  film.setAttribute('aria-label', 'Your clip');
  film.addEventListener('loadedmetadata', () => { place.style.minHeight = ''; });
  film.addEventListener('error', lose);
}

async function lose() {
  const key = shown, reason = await whyNot(film.src);
  if (key !== shown) return;  // another clip is here meanwhile
  const focused = document.activeElement === film;
  place.style.minHeight = '';
  place.replaceChildren(lostFilm(reason, () => { again = Date.now(); play(); film.focus(); }));
  if (focused) place.querySelector('button').focus();
}

// The film stays the same element, so that it stays as large as it is on the screen.
function play() {
  const clip = props.value;
  if (!film?.isConnected) { make(); place.replaceChildren(film); }
  place.style.minHeight = place.offsetHeight + 'px';  // nothing jumps until the new one's size is known
  film.poster = clip.poster ? clipFile(clip, 'poster', again) : '';
  film.src = clipFile(clip, 'clip', again);
}

function draw() {
  const clip = props.value, key = clip?.id ? clip.id + clip.version : '';
  if (key === shown) return;
  [shown, again] = [key, 0];
  if (key) play(); else place.replaceChildren();
}

watch('value', draw);
draw();
