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
  if (clip?.fresh) announce();
}

// A clip that has just been finished is announced where nobody sees it: further down on a phone, on another of Troupe's
// tabs, in another of the browser's.
const ready = document.createElement('button'), title = document.title;
ready.type = 'button';
ready.className = 'tr-ready';
ready.textContent = 'Your clip is ready. Show it';
ready.addEventListener('click', () => {
  quiet();
  if (!place.offsetParent) Array.from(document.querySelectorAll('#tr-rooms > .tab-wrapper button[role=tab], #tr-rooms button[role=tab]'))
    .find((tab) => tab.textContent.trim() === 'Create')?.click();
  setTimeout(() => { place.scrollIntoView({ behavior: 'smooth', block: 'center' }); film.focus({ preventScroll: true }); }, 50);
});
const seen = new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting) && !document.hidden) quiet();
}, { threshold: 0.3 });

function announce() {
  if (document.hidden) document.title = '✓ Your clip is ready · ' + title;
  document.body.append(ready);
  seen.observe(place);
}

function quiet() {
  seen.disconnect();
  ready.remove();
  document.title = title;
}
document.addEventListener('visibilitychange', () => {
  if (document.hidden || !ready.isConnected) return;
  document.title = title;
  seen.disconnect();
  seen.observe(place);  // it tells at once whether the film is in view
});

watch('value', draw);
draw();
