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

function tile(section) {
  const add = control('button', 'add', section.add);
  add.type = 'button';
  add.className = 'tr-add';
  add.dataset.role = section.role;
  add.append(make('b', '', '+'), make('span', '', section.add), make('small', '', section.hint));
  return add;
}

function paint() {
  const value = props.value || { sections: [], motions: [] };
  const focus = document.activeElement;
  const held = board.contains(focus) && focus.dataset.action
    ? [focus.closest('.tr-card')?.dataset.id, focus.dataset.action, focus.value] : null;
  board.replaceChildren();
  board.classList.toggle('empty', value.sections.every((section) => !section.cards.length));
  for (const section of value.sections) {
    const part = make('section', 'tr-section tr-' + section.role);
    part.dataset.role = section.role;
    part.setAttribute('aria-label', section.title);
    part.append(make('h3', '', section.title));
    const cards = make('div', 'tr-cards');
    for (const card of section.cards) cards.append(draw(card));
    if (section.room) cards.append(tile(section));
    part.append(cards);
    board.append(part);
  }
  if (!held) return;
  for (const again of board.querySelectorAll('[data-action="' + held[1] + '"]')) {
    if (again.closest('.tr-card')?.dataset.id !== held[0]) continue;
    if (held[1] === 'name') again.value = held[2];
    again.focus({ preventScroll: true });
  }
}

const inputOf = (role) => document.querySelector('input[data-testid="Upload ' + role + '-upload-button"]');
const idOf = (target) => target.closest('.tr-card')?.dataset.id;

board.addEventListener('click', (event) => {
  const target = event.target.closest('button[data-action]');
  if (!target) return;
  const action = target.dataset.action;
  if (action === 'add') { inputOf(target.dataset.role)?.click(); return; }
  const on = target.getAttribute('aria-checked') === 'true';
  trigger('edit', { action, id: idOf(target), value: action === 'mode' ? (on ? 'auto' : 'none') : null });
  if (action === 'retouch') showBrush();
});

board.addEventListener('change', (event) => {
  const action = event.target.dataset.action;
  if (action === 'name' && !event.target.value.trim()) { event.target.value = event.target.dataset.was; return; }
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
    const input = inputOf(section.dataset.role);
    if (kind !== 'drop' || !input) return;
    input.files = event.dataTransfer.files;  // Gradio's own upload takes it from here
    input.dispatchEvent(new Event('change', { bubbles: true }));
  });
}

// The brush opens below the cast: bring it into view once Gradio has put it there.
function showBrush(tries = 20) {
  const panel = document.querySelector('#tr-brush');
  if (panel?.offsetHeight) panel.scrollIntoView({ behavior: 'smooth', block: 'start' });
  else if (tries) setTimeout(() => showBrush(tries - 1), 150);
}

// Gradio refuses a whole drop for one file that is too large, so such files are kept back before it sees them.
const LARGEST = 40 * 1024 * 1024;
let keptBack = '';
function tellKeptBack() {
  if (keptBack) trigger('edit', { action: 'too large', value: keptBack });
  keptBack = '';
}
document.addEventListener('change', (event) => {
  const input = event.target;
  if (input.type !== 'file' || !input.closest('.tr-offstage')) return;
  const files = Array.from(input.files), fitting = files.filter((file) => file.size < LARGEST);
  if (fitting.length === files.length) return;
  const names = files.filter((file) => file.size >= LARGEST).map((file) => file.name).join(', ');
  keptBack = names;  // said once the others have arrived, whose message would take this one's place
  const kept = new DataTransfer();
  for (const file of fitting) kept.items.add(file);
  input.files = kept.files;
  if (fitting.length) return;
  event.stopImmediatePropagation();
  tellKeptBack();
}, true);

for (const hidden of document.querySelectorAll('.tr-offstage button, .tr-offstage input')) hidden.tabIndex = -1;
for (const input of document.querySelectorAll('.tr-offstage input[type=file]')) {
  input.accept = 'image/*,.heic,.heif,.avif';  // a hint for the file dialog; what a file really is the engine decides
}

const repaint = unpressed(board, paint);
watch('value', () => { repaint(); tellKeptBack(); });
paint();
