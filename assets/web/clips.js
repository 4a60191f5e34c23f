// The gallery: posters that play under the pointer, one clip looked at closely, two compared in step.
// Titles and prompts come from people: they are only ever set as text.
const room = element.querySelector('.tr-clips');
let open = null,
  pair = [],
  wanted = null;
const saved = {}; // clip id -> what became of its last export

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

// `label` is for those who do not see the text; `hint` says more under the pointer
function button(action, text, { hint, label, className } = {}) {
  const made = make('button', className || 'tr-do', text);
  made.type = 'button';
  made.dataset.action = action;
  if (label) made.setAttribute('aria-label', label);
  if (hint || label) made.title = hint || label;
  return made;
}

const all = () => props.value?.clips || [];
const find = (id) => all().find((clip) => clip.id === id);

function video(clip) {
  const made = make('video');
  made.src = clipFile(clip, 'clip');
  made.muted = true;
  made.loop = true;
  made.playsInline = true;
  made.preload = 'none';
  return made;
}

function card(clip) {
  const made = make('article', 'tr-clip' + (clip.id === open ? ' on' : ''));
  made.dataset.id = clip.id;
  const view = button('look', '', {
    label: 'Look at ' + (clip.title || 'this clip'),
    hint: clip.title,
    className: 'tr-poster',
  });
  if (clip.poster) {
    const poster = make('img');
    poster.src = clipFile(clip, 'poster');
    poster.alt = '';
    poster.loading = 'lazy';
    view.append(poster);
  } else view.append(make('span', 'tr-nothing', clip.words));
  view.append(make('i', '', clip.kind));
  const star = button('star', clip.favourite ? '★' : '☆', {
    label: clip.favourite ? 'No longer a favourite' : 'Make it a favourite',
    className: 'tr-star',
  });
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

function film(clip) {
  const left = make('div', 'tr-lookclip');
  if (clip.playable) {
    const made = video(clip);
    made.controls = true;
    made.autoplay = true;
    made.preload = 'metadata';
    if (clip.poster) made.poster = clipFile(clip, 'poster');
    mind(made, left, () => {
      made.src = clipFile(clip, 'clip', Date.now());
    });
    left.append(made);
  } else left.append(make('p', 'tr-message', clip.words));
  return left;
}

function words(clip) {
  const right = make('div', 'tr-lookwords');
  right.append(make('p', 'tr-said', clip.prompt), facts(clip));
  for (const notice of clip.notices) right.append(make('p', 'tr-note', notice));
  const actions = make('div', 'tr-actions');
  actions.append(button('open', 'Open as scene', { hint: 'Put its cast, words and settings on the desk' }));
  if (clip.promote)
    actions.append(
      button('promote', `Make it with ${clip.promote}`, { hint: `The same scene and seed, with ${clip.promote}` }),
    );
  if (clip.resumable) actions.append(button('resume', clip.kept ? 'Go on from where it was' : 'Make it again'));
  if (clip.playable) {
    actions.append(button('vary', 'Again with another seed', { hint: 'Queue the same scene with a seed of its own' }));
    const compared = pair.includes(clip.id);
    actions.append(
      button('compare', compared ? 'Do not compare' : 'Compare', { hint: 'Choose two clips to see them side by side' }),
    );
  }
  actions.append(button('delete', 'Delete', { hint: 'Move it to the trash' }));
  right.append(actions);
  if (clip.playable) right.append(...exports(clip));
  return right;
}

function exports(clip) {
  const row = make('div', 'tr-actions tr-exports');
  const mp4 = make('a', 'tr-do', 'MP4');
  mp4.href = clipFile(clip, 'download');
  mp4.setAttribute('download', '');
  row.append(make('span', 'tr-note', 'Save as'), mp4);
  const now = saved[clip.id];
  for (const [kind, text] of props.value.kinds) {
    const each = button('export', text, { label: 'Save as ' + text });
    each.dataset.kind = kind;
    each.disabled = now?.state === 'busy';
    row.append(each);
  }
  if (!now) return [row];
  const line = make('p', 'tr-note tr-saved' + (now.state === 'failed' ? ' warn' : ''));
  line.setAttribute('role', now.state === 'failed' ? 'alert' : 'status');
  const name = props.value.kinds.find(([kind]) => kind === now.kind)?.[1];
  if (now.state === 'busy') {
    const stop = button('unexport', 'Stop', { label: 'Stop saving it as ' + name });
    stop.dataset.kind = now.kind;
    line.append(make('span', '', 'Saving it as ' + name + ': ' + now.words), stop);
  } else if (now.state === 'ready') {
    const link = make('a', '', now.words);
    link.href = clipFile(clip, now.kind);
    link.setAttribute('download', '');
    line.append(make('span', '', 'Saved: '), link);
  } else line.append(make('span', '', now.words));
  return [row, line];
}

// Two clips in step: the longer one is the clock, so that both can be stopped and scrubbed together.
function compare(clips) {
  const panel = make('section', 'tr-compare');
  panel.setAttribute('aria-label', 'Two clips side by side');
  const films = clips.map((clip) => {
    const made = video(clip);
    made.preload = 'auto';
    made.loop = false;
    return made;
  });
  const views = make('div', 'tr-pair');
  clips.forEach((clip, i) => {
    const view = make('figure');
    view.append(
      films[i],
      make('figcaption', '', clip.kind + ' · seed ' + clip.seed + ' · ' + (clip.title || 'Untitled')),
    );
    views.append(view);
  });
  const play = button('play', 'Pause', { hint: 'Play or pause both' });
  const scrub = make('input');
  scrub.type = 'range';
  scrub.min = 0;
  scrub.max = 1000;
  scrub.value = 0;
  scrub.setAttribute('aria-label', 'Where both clips are');
  const row = make('div', 'tr-actions');
  row.append(play, scrub, button('uncompare', 'Close', { hint: 'Stop comparing' }));
  panel.append(views, row);

  let playing = true;
  const clock = () => (films[1].duration > films[0].duration ? films[1] : films[0]);
  const run = () => Promise.all(films.map((each) => each.play())).catch(() => set(false));
  const set = (on) => {
    playing = on;
    play.textContent = on ? 'Pause' : 'Play';
    if (on) run();
    else for (const each of films) each.pause();
  };
  const seek = (seconds) =>
    films.forEach((each) => {
      each.currentTime = Math.min(seconds, Math.max(0, each.duration - 0.02));
    });
  for (const each of films) {
    each.addEventListener('timeupdate', () => {
      const lead = clock(),
        other = films.find((film) => film !== lead);
      if (each !== lead || !lead.duration || scrub.matches(':active')) return;
      scrub.value = (1000 * lead.currentTime) / lead.duration;
      if (lead.currentTime < other.duration && Math.abs(other.currentTime - lead.currentTime) > 0.06)
        other.currentTime = lead.currentTime;
    });
    each.addEventListener('ended', () => {
      if (each === clock() && playing) {
        seek(0);
        run();
      }
    });
  }
  play.addEventListener('click', () => set(!playing));
  scrub.addEventListener('input', () => {
    set(false);
    seek((scrub.value / 1000) * clock().duration);
  });
  run();
  return panel;
}

// Each part of the room is drawn anew only where it has changed, so that a film that plays goes on playing.
const parts = {};
function part(name, key, draw) {
  if (!parts[name]) {
    parts[name] = { key: null, place: make('div', 'tr-part') };
    room.append(parts[name].place);
  }
  if (parts[name].key === key) return;
  parts[name].key = key;
  parts[name].place.replaceChildren(...draw());
}

function drawUndo(undo) {
  const line = make('div', 'tr-message tr-undoline');
  line.setAttribute('role', 'status');
  line.dataset.id = undo.id;
  line.append(
    make('span', '', 'Moved to the trash: ' + (undo.title || 'untitled')),
    button('restore', 'Undo', { hint: 'Bring it back' }),
  );
  return [line];
}

function drawPair(both) {
  if (both.length === 2) return [compare(both)];
  return both.length ? [make('p', 'tr-note tr-choose', 'Choose a second clip below and press Compare.')] : [];
}

function drawLook(clip) {
  const panel = make('section', 'tr-look');
  panel.dataset.id = clip.id;
  panel.setAttribute('aria-label', 'Clip: ' + clip.title);
  panel.append(button('shut', '×', { label: 'Close', className: 'tr-shut' }), film(clip), words(clip));
  return [panel];
}

const cards = new Map(); // clip id -> [what it was drawn from, its card]
function drawGrid() {
  const grid = parts.grid?.place.querySelector('.tr-grid') || make('div', 'tr-grid');
  const drawn = all().map((clip) => {
    const key = JSON.stringify([clip, clip.id === open]);
    if (cards.get(clip.id)?.[0] !== key) cards.set(clip.id, [key, card(clip)]);
    return cards.get(clip.id)[1];
  });
  grid.replaceChildren(...drawn);
  return drawn.length ? [grid] : [make('p', 'tr-empty', props.value?.hint)]; // no hint: nobody has looked yet
}

function hold() {
  const focus = room.contains(document.activeElement) ? document.activeElement : null;
  if (!focus) return () => {};
  const id = focus.closest('[data-id]')?.dataset.id,
    { action, kind } = focus.dataset;
  return () => {
    if (room.contains(document.activeElement)) return;
    Array.from(room.querySelectorAll('[data-action]'))
      .find(
        (each) =>
          each.dataset.action === action && each.dataset.kind === kind && each.closest('[data-id]')?.dataset.id === id,
      )
      ?.focus({ preventScroll: true });
  };
}

function paint() {
  const value = props.value || { clips: [] },
    focusAgain = hold();
  pair = pair.filter(find);
  const both = pair.map(find),
    looked = open && find(open);
  part('undo', JSON.stringify(value.undo || null), () => (value.undo ? drawUndo(value.undo) : []));
  part('pair', pair.join(), () => drawPair(both));
  part('look', looked ? looked.id + looked.playable : '', () => (looked ? drawLook(looked) : []));
  const said = looked && JSON.stringify([looked, pair, saved[looked.id]]),
    panel = parts.look.place.querySelector('.tr-look');
  if (looked && panel.dataset.said !== said) {
    panel.querySelector('.tr-lookwords').replaceWith(words(looked));
    panel.dataset.said = said;
  }
  part('grid', JSON.stringify([all(), open, value.hint]), drawGrid);
  focusAgain();
}

// An export that this page has asked for is saved as soon as it is ready; the link stays for another time.
function take(now) {
  saved[now.id] = now;
  if (now.state !== 'busy' && wanted === now.id + now.kind) {
    wanted = null;
    if (now.state !== 'ready') return;
    const link = make('a');
    link.href = clipFile(now, now.kind);
    link.setAttribute('download', '');
    link.click();
  }
}

room.addEventListener('click', (event) => {
  const target = event.target.closest('button[data-action]');
  if (!target) return;
  const { action, kind } = target.dataset,
    id = target.closest('[data-id]')?.dataset.id || null;
  if (action === 'look') {
    open = open === id ? null : id;
    paint();
    parts.look.place.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  } else if (action === 'shut') {
    open = null;
    paint();
  } else if (action === 'compare') {
    pair = pair.includes(id) ? pair.filter((each) => each !== id) : [...pair, id].slice(-2);
    paint();
    if (pair.length === 2) parts.pair.place.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  } else if (action === 'uncompare') {
    pair = [];
    paint();
  } else if (action !== 'play') {
    if (action === 'export') {
      wanted = id + kind;
      saved[id] = { id, kind, state: 'busy', words: '0 %' };
      paint();
    }
    trigger('act', { action, id, kind: kind || null });
  }
});

// Under the pointer, or with the keyboard on it, a poster plays.
function enliven(view) {
  const clip = find(view.closest('.tr-clip').dataset.id);
  if (!clip?.playable || view.querySelector('video')) return;
  const made = video(clip);
  made.preload = 'auto';
  if (clip.poster) made.poster = clipFile(clip, 'poster'); // until the film is there
  view.append(made);
  made.play().catch(() => {});
}
for (const [kind, alive] of [
  ['pointerover', true],
  ['focusin', true],
  ['pointerout', false],
  ['focusout', false],
]) {
  room.addEventListener(kind, (event) => {
    const view = event.target.closest?.('.tr-poster');
    if (!view || view.contains(event.relatedTarget)) return;
    if (alive) enliven(view);
    else view.querySelector('video')?.remove();
  });
}

const draw = unpressed(room, paint);
watch('value', () => {
  if (props.value?.saved) take(props.value.saved);
  draw();
});
paint();
