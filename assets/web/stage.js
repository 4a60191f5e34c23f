// The stage: cut-outs dragged, scaled, flipped and layered over the background.
// Gradio runs this once per mount with `element`, `props`, `trigger` and `watch`. The template never changes, so the
// nodes made here are ours. A move is told to the server when it ends, never while it goes on.
const frame = element.querySelector('.tr-frame');
const bar = element.querySelector('.tr-bar');
const live = element.querySelector('.tr-live');
const ICONS = {
  flip: 'M12 3v18M9 7 4 17h5zM15 7l5 10h-5z',
  bigger: 'M12 5v14M5 12h14',
  smaller: 'M5 12h14',
  front: 'M12 19V5M6 11l6-6 6 6',
  back: 'M12 5v14M6 13l6 6 6-6',
  auto: 'M4 12a8 8 0 1 0 3-6M4 4v5h5',
};
let actors = [],
  selected = null,
  drag = null,
  settling = null,
  stale = false;

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const find = (id) => actors.find((actor) => actor.id === id);
const node = (id) => Array.from(frame.querySelectorAll('.tr-actor')).find((each) => each.dataset.id === id);

function settle(actor) {
  const spot = node(actor.id);
  if (!spot) return;
  const size = props.value.width / props.value.height;
  const width = (actor.scale * actor.aspect) / size;
  spot.style.height = 100 * actor.scale + '%';
  spot.style.width = 100 * width + '%';
  spot.style.left = 100 * (actor.x - width / 2) + '%';
  spot.style.top = 100 * (actor.y - actor.scale) + '%';
  spot.style.zIndex = String(1 + actor.depth);
  spot.firstChild.style.transform = actor.flip ? 'scaleX(-1)' : '';
  const percent = (value) => Math.round(100 * value);
  spot.setAttribute(
    'aria-label',
    actor.name +
      ', ' +
      percent(actor.x) +
      ' percent across, ' +
      percent(actor.y) +
      ' percent down, ' +
      percent(actor.scale) +
      ' percent tall' +
      (actor.layer ? ', layer ' + actor.layer : '') +
      (actor.flip ? ', flipped' : ''),
  );
}

function tell(actor) {
  trigger('place', {
    id: actor.id,
    x: actor.x,
    y: actor.y,
    scale: actor.scale,
    flip: actor.flip,
    layer: actor.layer,
  });
  live.textContent = node(actor.id)?.getAttribute('aria-label') || '';
}

function button(action, label) {
  const made = document.createElement('button');
  made.type = 'button';
  made.dataset.action = action;
  made.title = label;
  made.setAttribute('aria-label', label);
  made.innerHTML = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="' + ICONS[action] + '"/></svg>';
  return made;
}

// At least a part of everybody stays where it can be seen and grabbed.
function keepOnStage(actor) {
  const half = (actor.scale * actor.aspect * props.value.height) / props.value.width / 2;
  actor.x = clamp(actor.x, -0.7 * half, 1 + 0.7 * half);
  actor.y = clamp(actor.y, 0.15 * actor.scale + 0.02, Math.min(0.85 + actor.scale * 0.85, 1.95));
}

function choose(id) {
  const held = bar.contains(document.activeElement) ? document.activeElement.dataset.action : null;
  selected = id;
  for (const each of frame.querySelectorAll('.tr-actor')) each.classList.toggle('on', each.dataset.id === id);
  bar.replaceChildren();
  const actor = find(id);
  const name = document.createElement('span');
  name.className = 'tr-who';
  name.textContent = actor
    ? actor.name
    : actors.length
      ? 'Drag anyone on the stage. Arrow keys, + and − work too.'
      : '';
  bar.append(name);
  if (!actor) {
    if (actors.length) bar.append(button('auto', 'Place everyone automatically'));
    return;
  }
  bar.append(
    button('smaller', 'Smaller'),
    button('bigger', 'Bigger'),
    button('flip', 'Flip'),
    button('back', 'Send backward'),
    button('front', 'Bring forward'),
    button('auto', 'Place automatically'),
  );
  if (held) bar.querySelector('[data-action="' + held + '"]')?.focus({ preventScroll: true });
}

function paint() {
  if (drag || settling) {
    stale = true;
    return;
  }
  const value = props.value || {};
  const focused = document.activeElement?.closest?.('.tr-actor')?.dataset.id;
  actors = (value.actors || []).map((actor) => ({ ...actor }));
  frame.style.aspectRatio = value.width + ' / ' + value.height;
  frame.style.setProperty('--tr-ratio', value.width / value.height);
  frame.classList.toggle('empty', !actors.length && !value.background);
  frame.replaceChildren();
  if (value.background) {
    const behind = document.createElement('img');
    behind.className = 'tr-behind';
    behind.alt = '';
    behind.draggable = false;
    behind.src = value.background;
    frame.append(behind);
  }
  if (!actors.length) {
    const hint = document.createElement('p');
    hint.className = 'tr-hint';
    hint.textContent = value.hint || '';
    frame.append(hint);
  }
  for (const actor of actors) {
    const spot = document.createElement('div');
    spot.className = 'tr-actor';
    spot.dataset.id = actor.id;
    spot.tabIndex = 0;
    spot.setAttribute('role', 'button');
    const picture = document.createElement('img');
    picture.alt = '';
    picture.draggable = false;
    picture.src = actor.url;
    const corner = document.createElement('span');
    corner.className = 'tr-corner';
    spot.append(picture, corner);
    frame.append(spot);
    settle(actor);
    if (actor.id === focused) spot.focus({ preventScroll: true });
  }
  choose(find(selected) ? selected : null);
}

function act(actor, action) {
  if (action === 'auto') {
    trigger('place', { id: actor.id, auto: true });
    return;
  }
  if (action === 'flip') actor.flip = !actor.flip;
  if (action === 'bigger') actor.scale = clamp(actor.scale * 1.08, 0.05, 3);
  if (action === 'smaller') actor.scale = clamp(actor.scale / 1.08, 0.05, 3);
  if (action === 'front') actor.layer = clamp(actor.layer + 1, -20, 20);
  if (action === 'back') actor.layer = clamp(actor.layer - 1, -20, 20);
  settle(actor);
  tell(actor);
}

bar.addEventListener('click', (event) => {
  const action = event.target.closest('button')?.dataset.action;
  if (action && find(selected)) act(find(selected), action);
  else if (action === 'auto') trigger('place', { auto: 'all' });
});

frame.addEventListener('pointerdown', (event) => {
  const spot = event.target.closest('.tr-actor');
  if (!spot) {
    choose(null);
    return;
  }
  const actor = find(spot.dataset.id);
  choose(actor.id);
  spot.focus({ preventScroll: true });
  drag = {
    actor,
    spot,
    scaling: event.target.classList.contains('tr-corner'),
    moved: false,
    startX: event.clientX,
    startY: event.clientY,
    x: actor.x,
    y: actor.y,
    scale: actor.scale,
  };
  spot.setPointerCapture(event.pointerId);
  event.preventDefault();
});

frame.addEventListener('pointermove', (event) => {
  if (!drag) return;
  const box = frame.getBoundingClientRect();
  const dx = (event.clientX - drag.startX) / box.width,
    dy = (event.clientY - drag.startY) / box.height;
  if (Math.abs(dx) + Math.abs(dy) > 0.002) drag.moved = true;
  if (drag.scaling) {
    drag.actor.scale = clamp(drag.scale - dy, 0.05, 3);
  } else {
    drag.actor.x = drag.x + dx;
    drag.actor.y = drag.y + dy;
  }
  keepOnStage(drag.actor);
  settle(drag.actor);
});

function drop() {
  if (!drag) return;
  const { actor, moved } = drag;
  drag = null;
  if (moved) {
    tell(actor);
    catchUp(actor);
  } else if (stale && !settling) {
    stale = false;
    paint();
  }
}
frame.addEventListener('pointerup', drop);
frame.addEventListener('pointercancel', drop);

// What the server said while someone was moved is drawn now; who was moved stays where they are until it has heard.
function catchUp({ id, x, y, scale, flip, layer }) {
  if (!stale || drag || settling) return;
  stale = false;
  paint();
  const actor = find(id);
  if (actor) settle(Object.assign(actor, { x, y, scale, flip, layer }));
}

let resting = null; // who is moved by wheel or keys

function soon(actor) {
  // they repeat: tell the server once they rest
  if (resting && resting !== actor) {
    const { x, y, scale, flip, layer } = actor;
    flush(); // which may draw everyone anew
    actor = Object.assign(find(actor.id) || actor, { x, y, scale, flip, layer });
  }
  resting = actor;
  settle(actor);
  clearTimeout(settling);
  settling = setTimeout(flush, 250);
}

function flush() {
  if (!resting) return;
  clearTimeout(settling);
  const actor = resting;
  resting = settling = null;
  tell(actor);
  catchUp(actor);
}
document.addEventListener('click', flush, true); // whatever is pressed next is meant for who stands there now

frame.addEventListener(
  'wheel',
  (event) => {
    const actor = find(event.target.closest('.tr-actor')?.dataset.id);
    if (!actor || actor.id !== selected) return;
    event.preventDefault();
    actor.scale = clamp(actor.scale * (event.deltaY < 0 ? 1.04 : 1 / 1.04), 0.05, 3);
    soon(actor);
  },
  { passive: false },
);

frame.addEventListener('focusin', (event) => {
  const id = event.target.closest('.tr-actor')?.dataset.id;
  if (id && id !== selected) choose(id);
});

frame.addEventListener('keydown', (event) => {
  const actor = find(event.target.closest('.tr-actor')?.dataset.id);
  if (!actor || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = event.shiftKey ? 0.05 : 0.01;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (moves[event.key]) {
    actor.x += moves[event.key][0];
    actor.y += moves[event.key][1];
    keepOnStage(actor);
  } else if (event.key === '+' || event.key === '=') actor.scale = clamp(actor.scale * 1.04, 0.05, 3);
  else if (event.key === '-' || event.key === '−') actor.scale = clamp(actor.scale / 1.04, 0.05, 3);
  else if (event.key === 'f' || event.key === 'F') actor.flip = !actor.flip;
  else if (event.key === ']') actor.layer = clamp(actor.layer + 1, -20, 20);
  else if (event.key === '[') actor.layer = clamp(actor.layer - 1, -20, 20);
  else return;
  event.preventDefault();
  soon(actor);
});

watch('value', unpressed(bar, paint));
paint();
