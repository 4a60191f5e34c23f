// The cast board: one card for each of the cast, in three sections that take dropped files.
// Names come from strangers' file names: they are only ever set as text, never as markup.
const board = element.querySelector('.tr-board');
const PATHS = { brush: 'M4 20c3 0 5-1 5-4l9-11 2 2-11 9c0 3-2 4-5 4z', remove: 'M6 6l12 12M18 6 6 18' };

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function icon(name) {
  const span = make('span', 'tr-icon');
  span.innerHTML = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="' + PATHS[name] + '"/></svg>';
  return span;
}

function control(tag, action, label) {
  const made = make(tag);
  made.dataset.action = action;
  made.setAttribute('aria-label', label);
  made.title = label;
  return made;
}

function toggle(card) {
  const asIs = control('button', 'mode', 'Use the whole photo of ' + card.name);
  asIs.type = 'button';
  asIs.className = 'tr-switch';
  asIs.setAttribute('role', 'switch');
  asIs.setAttribute('aria-checked', String(card.mode === 'none'));
  asIs.append(make('i'), make('span', '', 'Whole photo'));
  asIs.title = 'Use the photo as it is, without cutting it out';
  return asIs;
}

function motions(card) {
  const pick = control('select', 'motion', 'What ' + card.name + ' does');
  for (const [value, text] of props.value.motions) {
    const option = make('option', '', text);
    option.value = value;
    option.selected = value === card.motion;
    pick.append(option);
  }
  return pick;
}

function draw(card) {
  const made = make('article', 'tr-card');
  made.dataset.id = card.id;
  const view = make('div', 'tr-thumb' + (card.role === 'background' ? ' wide' : ''));
  const picture = make('img');
  picture.src = card.url;
  picture.alt = (card.role === 'background' ? 'Background ' : 'Cut-out of ') + card.name;
  const away = control('button', 'remove', 'Remove ' + card.name);
  away.type = 'button';
  away.className = 'tr-away';
  away.append(icon('remove'));
  view.append(picture, away);
  const name = control('input', 'name', 'Name of ' + card.name);
  name.value = card.name;
  name.dataset.was = card.name;
  name.maxLength = 60;
  name.className = 'tr-name';
  name.autocomplete = 'off';
  made.append(view, name);
  if (card.role !== 'background') {
    const row = make('div', 'tr-row');
    const brush = control('button', 'retouch', 'Touch up the cut-out of ' + card.name);
    brush.type = 'button';
    brush.className = 'tr-mini';
    brush.append(icon('brush'), make('span', '', 'Brush'));
    row.append(toggle(card), brush);
    made.append(motions(card), row);
  }
  if (card.views.length || card.more) made.append(views(card));
  if (card.role === 'background') {
    const other = control('button', 'add', 'Choose another background');
    other.type = 'button';
    other.className = 'tr-mini';
    other.dataset.role = card.role;
    other.append(make('span', '', 'Change'));
    made.append(other);
  }
  if (card.note) made.append(make('p', 'tr-note' + (card.doubtful ? ' warn' : ''), card.note));
  return made;
}

// Its further views, and a button for one more.
function views(card) {
  const row = make('div', 'tr-views');
  for (const view of card.views) {
    const away = control('button', 'unview', 'Remove this view of ' + card.name);
    const picture = make('img');
    picture.src = view.url;
    picture.alt = 'Another view of ' + card.name;
    away.type = 'button';
    away.dataset.value = away.dataset.key = view.id;
    away.append(picture, icon('remove'));
    row.append(away);
  }
  if (card.more) {
    const more = control('button', 'view', 'Add a picture of ' + card.name + ' from another side');
    more.type = 'button';
    more.className = 'tr-mini';
    more.title += ': video models look at it where they have room, the draft does not';
    more.append(make('span', '', '+ Another side'));
    row.append(more);
  }
  return row;
}

function tile(section) {
  const add = control('button', 'add', section.add);
  add.type = 'button';
  add.className = 'tr-add';
  add.dataset.role = section.role;
  add.append(make('b', '', '+'), make('span', '', section.add), make('small', '', section.hint));
  return add;
}

// What a control belongs to: a card, a picture on its way, or a section.
function whose(control) {
  return control.closest('.tr-card')?.dataset.id || control.dataset.key || control.dataset.role || '';
}

function paint() {
  const value = props.value || { sections: [], motions: [] };
  const focus = document.activeElement;
  const held = board.contains(focus) && focus.dataset.action ? [whose(focus), focus.dataset.action, focus.value] : null;
  board.replaceChildren();
  board.classList.toggle(
    'empty',
    value.sections.every((section) => !section.cards.length),
  );
  for (const section of value.sections) {
    const part = make('section', 'tr-section tr-' + section.role);
    part.dataset.role = section.role;
    part.setAttribute('aria-label', section.title);
    part.append(make('h3', '', section.title));
    const cards = make('div', 'tr-cards');
    const tiles = coming.filter((file) => file.role === section.role && file.state !== 'unwanted');
    for (const card of section.cards) {
      cards.append(draw(card), ...tiles.filter((file) => file.of === card.id).map((file) => file.tile));
    }
    const here = new Set(section.cards.map((card) => card.id));
    for (const file of tiles) if (!here.has(file.of)) cards.append(file.tile);
    if (section.room) cards.append(tile(section));
    part.append(cards);
    board.append(part);
  }
  if (!held) return;
  for (const again of board.querySelectorAll('[data-action="' + held[1] + '"]')) {
    if (whose(again) !== held[0]) continue;
    if (held[1] === 'name') again.value = held[2];
    again.focus({ preventScroll: true });
  }
}

const inputs = {};
for (const role of ['character', 'object', 'background', 'view']) {
  const input = make('input', 'tr-file');
  Object.assign(input, { type: 'file', multiple: role !== 'background', hidden: true, tabIndex: -1 });
  input.accept = 'image/*,.heic,.heif,.avif'; // a hint for the file dialog; what a file really is the engine decides
  input.dataset.testid = 'Upload ' + role + '-upload-button';
  input.addEventListener('change', () => {
    bring(
      role === 'view' ? input.dataset.role : role,
      Array.from(input.files),
      role === 'view' ? input.dataset.of : '',
    );
    input.value = '';
  });
  inputs[role] = input;
  element.append(input);
}
const idOf = (target) => target.closest('.tr-card')?.dataset.id;

board.addEventListener('click', (event) => {
  const target = event.target.closest('button[data-action]');
  if (!target) return;
  const action = target.dataset.action;
  if (action === 'add') {
    inputs[target.dataset.role].click();
    return;
  }
  if (action === 'view') {
    Object.assign(inputs.view.dataset, { of: idOf(target), role: target.closest('.tr-section').dataset.role });
    inputs.view.click();
    return;
  }
  if (action === 'unview') {
    trigger('edit', { action, id: idOf(target), value: target.dataset.value });
    return;
  }
  if (action === 'forget') {
    const section = target.closest('.tr-section');
    forget(target.dataset.key);
    section.querySelector('.tr-add')?.focus({ preventScroll: true });
    return;
  }
  if (action === 'again') {
    sendAgain(target.dataset.key);
    return;
  }
  const on = target.getAttribute('aria-checked') === 'true';
  trigger('edit', { action, id: idOf(target), value: action === 'mode' ? (on ? 'auto' : 'none') : null });
  if (action === 'retouch') showBrush();
});

board.addEventListener('change', (event) => {
  const action = event.target.dataset.action;
  if (action === 'name' && !event.target.value.trim()) {
    event.target.value = event.target.dataset.was;
    return;
  }
  if (action === 'name' || action === 'motion') {
    trigger('edit', { action, id: idOf(event.target), value: event.target.value });
  }
});

board.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && event.target.dataset.action === 'name') event.target.blur();
});

for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  board.addEventListener(kind, (event) => {
    const section = event.target.closest('.tr-section');
    if (!section || !event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    section.classList.toggle('over', kind === 'dragenter' || kind === 'dragover');
    if (kind === 'drop') bring(section.dataset.role, Array.from(event.dataTransfer.files));
  });
}

// The brush opens below the cast: bring it into view once Gradio has put it there.
function showBrush(tries = 20) {
  const panel = document.querySelector('#tr-brush');
  if (panel?.offsetHeight) panel.scrollIntoView({ behavior: 'smooth', block: 'start' });
  else if (tries) setTimeout(() => showBrush(tries - 1), 150);
}

// -- pictures on their way -----------------------------------------------------
// Each has a place in its section from the moment it was chosen until the board that holds its card has come. They
// travel one after another: a slow line would bring all of them late.
const LARGEST = TOLD.largest, // bytes, as the server has it
  PATIENCE = 300000; // milliseconds for an answer
const coming = [];
let sending = null,
  count = 0;

// `of`: the card that these are further views of; empty where each is one more of the cast.
function bring(role, files, of = '') {
  const large = files
    .filter((file) => file.size >= LARGEST)
    .map((file) => file.name)
    .join(', ');
  if (large) trigger('edit', { action: 'too large', value: large });
  for (const file of files) {
    if (file.size >= LARGEST) continue;
    const each = { key: Date.now() + '.' + count++, role, of, file, state: 'waiting' };
    each.tile = make('article', 'tr-coming');
    coming.push(each);
    place(each);
    if (role === 'background' && file !== files[0]) refuse(each, 'A scene has one background: this one was left out.');
  }
  repaint();
  send();
}

function place(each) {
  const view = make('div', 'tr-glimpse'),
    picture = make('img');
  picture.alt = '';
  picture.src = URL.createObjectURL(each.file);
  picture.onload = () => URL.revokeObjectURL(picture.src);
  picture.onerror = () => picture.remove(); // a kind that this browser does not show
  const away = control('button', 'forget', 'Do not bring ' + each.file.name);
  away.type = 'button';
  away.className = 'tr-away';
  away.dataset.key = each.key;
  away.append(icon('remove'));
  view.append(picture, away);
  each.bar = make('div', 'tr-progress');
  each.bar.setAttribute('role', 'progressbar');
  each.bar.setAttribute('aria-label', 'Bringing ' + each.file.name);
  each.bar.append(make('div', 'tr-fill'));
  each.said = make('p', 'tr-note');
  each.said.setAttribute('role', 'status');
  each.tile.append(view, make('p', 'tr-who', each.file.name), each.bar, each.said);
  tell(each, 'Waiting for the others', 0);
}

function tell(each, text, share) {
  each.said.textContent = text;
  each.bar.hidden = share === null;
  if (share === null) return;
  each.bar.firstChild.style.width = 100 * share + '%';
  each.bar.setAttribute('aria-valuenow', Math.round(100 * share));
}

function send() {
  const each = sending ? null : coming.find((one) => one.state === 'waiting');
  if (!each) return;
  sending = each;
  each.state = 'travels';
  tell(each, 'On its way', 0);
  const form = new FormData(),
    request = new XMLHttpRequest();
  each.request = request;
  form.append('files', each.file, each.file.name);
  request.open('POST', 'gradio_api/upload');
  request.upload.onprogress = ({ loaded, total }) => {
    tell(each, 'On its way · ' + Math.round((100 * loaded) / total) + ' %', loaded / total);
  };
  request.onload = () => {
    let answer = request.responseText;
    try {
      answer = JSON.parse(answer);
    } catch {
      /* the door speaks in plain text */
    }
    if (request.status !== 200 || !Array.isArray(answer)) {
      const why = answer.detail || answer.error || (typeof answer === 'string' && answer.length < 300 && answer);
      const final = request.status >= 400 && request.status < 500 && request.status !== 429 && request.status !== 401;
      if (!final) return fail(each, why || 'Troupe did not take it.');
      refuse(each, why || 'Troupe does not take it.');
      return following();
    }
    each.state = 'here';
    each.path = answer[0];
    tell(each, 'Waiting for the others', 1);
    following();
    take();
  };
  request.onerror = () => fail(each, 'The connection broke.');
  request.send(form);
}

// One after another, so that the cards come in the order in which the pictures were chosen.
function take() {
  if (coming.some((one) => one.state === 'taken' || one.state === 'unwanted')) return;
  const each = coming.find((one) => one.state === 'here');
  if (!each) return;
  each.state = 'taken';
  tell(each, each.role === 'background' ? 'Opening it' : 'Cutting it out', 1);
  each.tile.classList.add('working');
  each.timer = setTimeout(() => fail(each, 'Troupe does not answer.'), PATIENCE);
  const { role, of, path, key } = each;
  trigger('edit', { action: 'upload', role, of, path, name: each.file.name, value: key });
}

function following() {
  sending = null;
  send();
}

function fail(each, why) {
  clearTimeout(each.timer);
  each.state = 'failed';
  each.tile.classList.remove('working');
  tell(each, 'It did not arrive. ' + why, null);
  each.said.className = 'tr-note warn';
  const again = control('button', 'again', 'Try again to bring ' + each.file.name);
  again.type = 'button';
  again.className = 'tr-mini';
  again.dataset.key = each.key;
  again.append(make('span', '', 'Try again'));
  each.tile.append(again);
  if (sending === each) following();
  take();
}

// What is no picture stays beside the others, with the reason, until it is taken away.
function refuse(each, why) {
  clearTimeout(each.timer);
  each.state = 'refused';
  each.tile.classList.remove('working');
  tell(each, why, null);
  each.said.className = 'tr-note warn';
  take();
}

function sendAgain(key) {
  const each = coming.find((one) => one.key === key);
  if (!each) return;
  each.tile.querySelector('[data-action="again"]').remove();
  each.said.className = 'tr-note';
  each.state = 'waiting';
  tell(each, 'Waiting for the others', 0);
  send();
}

function forget(key) {
  const at = coming.findIndex((one) => one.key === key);
  if (at < 0) return;
  const each = coming[at];
  clearTimeout(each.timer);
  each.tile.remove();
  if (each.state === 'taken' && each.key !== props.value?.heard) {
    // its card comes, and goes
    each.state = 'unwanted';
    return;
  }
  coming.splice(at, 1);
  if (sending === each) {
    each.request.abort();
    following();
  }
  take();
}

addEventListener('beforeunload', (event) => {
  if (coming.some((one) => !['refused', 'failed', 'unwanted'].includes(one.state))) event.preventDefault();
});

const repaint = unpressed(board, paint);
watch('value', () => {
  const { heard, refused, made } = props.value || {},
    each = coming.find((one) => one.key === heard);
  const unwanted = each?.state === 'unwanted';
  if (each && refused && !unwanted) refuse(each, refused);
  else forget(heard);
  if (unwanted && made) {
    trigger('edit', each.of ? { action: 'unview', id: each.of, value: made } : { action: 'remove', id: made });
  }
  repaint();
});
paint();
