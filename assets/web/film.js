// The finished clip. It comes by the clips' own route, wherever on this machine the outputs lie, and plays by itself.
// The film stays the same element, so that it stays as large as it is on the screen.
const place = element.querySelector('.tr-film'), film = document.createElement('video');
let shown = '';
Object.assign(film, { controls: true, autoplay: true, loop: true, muted: true, playsInline: true });
film.setAttribute('aria-label', 'Your clip');
for (const end of ['loadedmetadata', 'error']) film.addEventListener(end, () => { place.style.minHeight = ''; });
mind(film, place, () => play(Date.now()));

function play(again = 0) {
  const clip = props.value;
  if (!film.isConnected) place.replaceChildren(film);
  place.style.minHeight = place.offsetHeight + 'px';  // nothing jumps until the new one's size is known
  film.poster = clip.poster ? clipFile(clip, 'poster', again) : '';
  film.src = clipFile(clip, 'clip', again);
}

function draw() {
  const clip = props.value, key = clip?.id ? clip.id + clip.version : '';
  if (key === shown) return;
  shown = key;
  if (key) play(); else place.replaceChildren();
}

watch('value', draw);
draw();
