// The finished clip. It comes by the clips' own route, wherever on this machine the outputs lie, and plays by itself.
// The film stays the same element, so that it stays as large as it is on the screen.
const place = element.querySelector('.tr-film'),
  film = document.createElement('video');
let shown = '';
Object.assign(film, { controls: true, autoplay: true, loop: true, muted: true, playsInline: true });
film.setAttribute('aria-label', 'Your clip');
for (const end of ['loadedmetadata', 'error'])
  film.addEventListener(end, () => {
    place.style.minHeight = '';
  });
mind(film, place, () => play(Date.now()));

function play(again = 0) {
  const clip = props.value;
  if (!film.isConnected) place.replaceChildren(film);
  place.style.minHeight = place.offsetHeight + 'px'; // nothing jumps until the new one's size is known
  film.poster = clip.poster ? clipFile(clip, 'poster', again) : '';
  film.src = clipFile(clip, 'clip', again);
}

function draw() {
  const clip = props.value,
    key = clip?.id ? clip.id + clip.version : '';
  if (key === shown) return;
  shown = key;
  if (key) play();
  else place.replaceChildren();
  quiet();
  if (key && key !== remembered()) announce();
}

// A clip that nobody has seen yet is announced where it ends out of sight: further down on a phone, on another of
// Troupe's tabs, in another of the browser's, or while the page was being loaded.
const MEMORY = 'troupe-seen-clip',
  ready = document.createElement('button');
const news = document.createElement('div'); // there before its words are, or nobody hears them
news.setAttribute('role', 'status');
document.body.append(news);
ready.type = 'button';
ready.className = 'tr-ready';
ready.textContent = 'Your clip is ready. Show it';
ready.addEventListener('click', () => {
  if (!place.offsetParent)
    Array.from(document.querySelectorAll('#tr-rooms button[role=tab]'))
      .find((tab) => tab.textContent.trim() === 'Create')
      ?.click();
  setTimeout(() => {
    place.scrollIntoView({ behavior: 'smooth', block: 'center' });
    film.focus({ preventScroll: true });
  }, 50);
});
const view = new IntersectionObserver(
  (entries) => {
    if (document.hidden || !entries.some((entry) => entry.isIntersecting)) return;
    try {
      localStorage.setItem(MEMORY, shown);
    } catch {
      /* a browser that keeps nothing */
    }
    quiet();
  },
  { threshold: 0.3 },
);

function remembered() {
  try {
    return localStorage.getItem(MEMORY);
  } catch {
    return shown;
  }
}

function announce() {
  look();
  setTimeout(() => {
    if (shown !== remembered()) news.append(ready);
  }, 800); // unless it is in view anyway
}

function look() {
  view.disconnect();
  view.observe(place);
} // it tells at once whether the film is in view

function quiet() {
  view.disconnect();
  ready.remove();
}
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && shown && shown !== remembered()) look();
});

watch('value', draw);
draw();
