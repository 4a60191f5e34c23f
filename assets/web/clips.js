// The gallery: posters that play under the pointer, one clip looked at closely, two compared in step.
// Titles and prompts come from people: they are only ever set as text.
const room = element.querySelector('.tr-clips');
let open = null, pair = [], asked = null;

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function button(action, text, label, className) {
  const made = make('button', className || 'tr-do', text);
  made.type = 'button';
  made.dataset.action = action;
  if (label) { made.setAttribute('aria-label', label); made.title = label; }
  return made;
}

const all = () => props.value?.clips || [];
const find = (id) => all().find((clip) => clip.id === id);
const file = (clip, kind) => 'clips/' + clip.id + '/' + kind;  // relative: the page may lie below another path

function video(clip, className) {
  const made = make('video', className);
  made.src = file(clip, 'clip');
  made.muted = true;
  made.loop = true;
  made.playsInline = true;
  made.preload = 'none';
  return made;
}

function card(clip) {
  const made = make('article', 'tr-clip' + (clip.id === open ? ' on' : ''));
  made.dataset.id = clip.id;
  const view = button('look', '', 'Look at ' + clip.title, 'tr-poster');
  view.style.setProperty('--tr-shape', clip.width + '/' + clip.height);
  if (clip.poster) {
    const poster = make('img');
    poster.src = file(clip, 'poster');
    poster.alt = '';
    poster.loading = 'lazy';
    view.append(poster);
  } else view.append(make('span', 'tr-nothing', clip.words));
  view.append(make('i', '', clip.kind));
  const star = button('star', clip.favourite ? '★' : '☆', clip.favourite ? 'No longer a favourite' : 'Make it a favourite', 'tr-star');
  star.setAttribute('aria-pressed', String(clip.favourite));
  const line = make('div', 'tr-clipline');
  line.append(make('span', '', clip.title || 'Untitled'), star);
  made.append(view, line);
  return made;
}

function facts(clip) {
  const table = make('dl', 'tr-facts2');
  for (const [name, value] of clip.facts) table.append(make('dt', '', name), make('dd', '', value));
  return table;
}

function close(clip) {
  const panel = make('section', 'tr-look');
  panel.dataset.id = clip.id;
  panel.setAttribute('aria-label', 'Clip: ' + clip.title);
  const left = make('div', 'tr-lookclip');
  if (clip.playable) {
    const film = video(clip);
    film.controls = true;
    film.autoplay = true;
    film.preload = 'metadata';
    left.append(film);
  } else left.append(make('p', 'tr-message', clip.words));
  const right = make('div', 'tr-lookwords');
  right.append(make('p', 'tr-said', clip.prompt), facts(clip));
  for (const notice of clip.notices) right.append(make('p', 'tr-note', notice));
  const actions = make('div', 'tr-actions');
  actions.append(button('open', 'Open as scene', 'Put its cast, words and settings on the desk'));
  if (clip.promotable) actions.append(button('promote', 'Make it with SkyReels-A2', 'The same scene and seed with the video model'));
  if (clip.resumable) actions.append(button('resume', clip.kept ? 'Go on from where it was' : 'Make it again', ''));
  if (clip.playable) {
    const save = make('a', 'tr-do', 'Download MP4');
    save.href = file(clip, 'download');
    save.setAttribute('download', '');
    actions.append(save, button('compare', pair.includes(clip.id) ? 'Do not compare' : 'Compare', 'Choose two clips to see them side by side'));
  }
  actions.append(button('delete', 'Delete', 'Move it to the trash'));
  right.append(actions);
  if (clip.playable) {
    const more = make('div', 'tr-actions tr-exports');
    more.append(make('span', 'tr-note', 'Save as'));
    for (const [kind, text] of props.value.kinds) {
      const each = button('export', text, 'Save as ' + text);
      each.dataset.kind = kind;
      more.append(each);
    }
    right.append(more);
  }
  const away = button('shut', '×', 'Close', 'tr-shut');
  panel.append(away, left, right);
  return panel;
}

// Two clips in step: one clock for both, so that they can be stopped and scrubbed together.
function compare(clips) {
  const panel = make('section', 'tr-compare');
  panel.setAttribute('aria-label', 'Two clips side by side');
  const films = clips.map((clip) => { const film = video(clip); film.preload = 'auto'; return film; });
  const views = make('div', 'tr-pair');
  clips.forEach((clip, i) => {
    const view = make('figure');
    view.append(films[i], make('figcaption', '', clip.kind + ' · seed ' + clip.seed));
    views.append(view);
  });
  const play = button('play', 'Pause', 'Play or pause both');
  const scrub = make('input');
  scrub.type = 'range'; scrub.min = 0; scrub.max = 1000; scrub.value = 0;
  scrub.setAttribute('aria-label', 'Where both clips are');
  const row = make('div', 'tr-actions');
  row.append(play, scrub, button('uncompare', 'Close', 'Stop comparing'));
  panel.append(views, row);
  const [lead, other] = films;
  const together = () => {
    if (Math.abs(other.currentTime - lead.currentTime) > 0.04 && lead.currentTime < other.duration) other.currentTime = lead.currentTime;
    if (lead.duration && !scrub.matches(':active')) scrub.value = (1000 * lead.currentTime) / lead.duration;
  };
  lead.loop = true;
  lead.addEventListener('timeupdate', together);
  lead.addEventListener('seeked', together);
  play.addEventListener('click', (event) => {
    event.stopPropagation();
    const playing = !lead.paused;
    for (const film of films) playing ? film.pause() : film.play().catch(() => {});
    play.textContent = playing ? 'Play' : 'Pause';
  });
  scrub.addEventListener('input', () => {
    for (const film of films) if (film.duration) film.currentTime = Math.min(film.duration - 0.01, (scrub.value / 1000) * lead.duration);
  });
  Promise.all(films.map((film) => film.play())).catch(() => { play.textContent = 'Play'; });
  return panel;
}

function paint() {
  const value = props.value || { clips: [] };
  const playing = room.querySelector('.tr-look video');
  const at = playing && room.querySelector('.tr-look')?.dataset.id === open ? [playing.currentTime, playing.paused] : null;
  const focus = room.contains(document.activeElement) ? document.activeElement : null;
  const held = focus && [focus.closest('[data-id]')?.dataset.id, focus.dataset.action];
  if (value.opened && value.opened !== asked) { asked = value.opened; open = value.opened; }
  pair = pair.filter(find);
  const both = pair.map(find);
  const kept = both.length === 2 && room.querySelector('.tr-compare')?.dataset.pair === pair.join() ? room.querySelector('.tr-compare') : null;
  room.replaceChildren();
  if (value.undo) {
    const undo = make('div', 'tr-message tr-undoline');
    undo.setAttribute('role', 'status');
    undo.dataset.id = value.undo.id;
    undo.append(make('span', '', 'Moved to the trash: ' + (value.undo.title || 'untitled')), button('restore', 'Undo', 'Bring it back'));
    room.append(undo);
  }
  if (both.length === 2) {
    const panel = kept || compare(both);
    panel.dataset.pair = pair.join();
    room.append(panel);
  } else if (both.length === 1) room.append(make('p', 'tr-note', 'Comparing: choose a second clip and press Compare.'));
  const looked = open && find(open);
  if (looked) {
    const panel = close(looked);
    room.append(panel);
    const film = panel.querySelector('video');
    if (film && at) { film.currentTime = at[0]; if (at[1]) film.autoplay = false; }
  }
  if (!all().length) room.append(make('p', 'tr-empty', value.hint || 'No clips yet.'));
  const grid = make('div', 'tr-grid');
  grid.append(...all().map(card));
  room.append(grid);
  if (!held) return;
  const again = Array.from(room.querySelectorAll('[data-action]')).find((each) =>
    each.dataset.action === held[1] && each.closest('[data-id]')?.dataset.id === held[0]);
  again?.focus({ preventScroll: true });
}

room.addEventListener('click', (event) => {
  const target = event.target.closest('button[data-action]');
  if (!target) return;
  const action = target.dataset.action, id = target.closest('[data-id]')?.dataset.id || null;
  if (action === 'look') {
    open = open === id ? null : id;
    paint();
    room.querySelector('.tr-look')?.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  } else if (action === 'shut') { open = null; paint(); }
  else if (action === 'compare') {
    pair = pair.includes(id) ? pair.filter((each) => each !== id) : [...pair, id].slice(-2);
    paint();
  } else if (action === 'uncompare') { pair = []; paint(); }
  else if (action !== 'play') trigger('act', { action, id, kind: target.dataset.kind || null });
});

// Under the pointer, or with the keyboard on it, a poster plays.
function enliven(view) {
  const clip = find(view.closest('.tr-clip').dataset.id);
  if (!clip?.playable || view.querySelector('video')) return;
  const film = video(clip);
  film.preload = 'auto';
  view.append(film);
  film.play().catch(() => {});
}
for (const [kind, alive] of [['pointerover', true], ['focusin', true], ['pointerout', false], ['focusout', false]]) {
  room.addEventListener(kind, (event) => {
    const view = event.target.closest?.('.tr-poster');
    if (!view || view.contains(event.relatedTarget)) return;
    if (alive) enliven(view); else view.querySelector('video')?.remove();
  });
}

watch('value', paint);
paint();
