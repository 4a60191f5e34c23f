// The linter's answer as chips: each name of the cast, said in the prompt or not. A click writes it at the cursor.
const row = element.querySelector('.tr-names');

function paint() {
  const value = props.value || { names: [], note: '' };
  row.replaceChildren();
  for (const each of value.names) {
    const chip = document.createElement('button');
    chip.type = 'button';
    chip.className = 'tr-chip' + (each.mentioned ? ' said' : '');
    chip.dataset.name = each.name;
    chip.textContent = each.name;
    chip.title = each.mentioned ? 'The prompt mentions ' + each.name : 'Write ' + each.name + ' into the prompt';
    row.append(chip);
  }
  const note = document.createElement('span');
  note.className = 'tr-lint' + (value.ok ? '' : ' warn');
  note.setAttribute('role', 'status');
  note.textContent = value.note || '';
  row.append(note);
}

row.addEventListener('click', (event) => {
  const name = event.target.closest('.tr-chip')?.dataset.name;
  const box = document.querySelector('#tr-prompt textarea');
  if (!name || !box) return;
  const start = box.selectionStart ?? box.value.length,
    end = box.selectionEnd ?? start;
  const before = box.value.slice(0, start),
    after = box.value.slice(end);
  const text = (before && !/\s$/.test(before) ? ' ' : '') + name + (after && !/^[\s.,;:!?]/.test(after) ? ' ' : '');
  box.value = before + text + after;
  box.dispatchEvent(new Event('input', { bubbles: true }));
  box.focus();
  box.setSelectionRange(start + text.length, start + text.length);
});

// What was typed while the server was away is kept in this tab until the server has it.
const KEPT = 'troupe-prompt';
const storage = (() => {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
})();
let opened = false;

document.addEventListener('input', (event) => {
  if (opened && event.target.closest?.('#tr-prompt')) storage?.setItem(KEPT, event.target.value);
});

function reconcile() {
  if (props.value?.saved === undefined) return;
  const kept = storage?.getItem(KEPT);
  if (kept === props.value.saved) storage?.removeItem(KEPT);
  else if (!opened && kept) {
    setTimeout(() => {
      // after Gradio has written the server's text
      const box = document.querySelector('#tr-prompt textarea');
      if (!box || box.value === kept) return;
      box.value = kept;
      box.dispatchEvent(new Event('input', { bubbles: true }));
    }, 300);
  }
  opened = true;
}

const draw = unpressed(row, paint);
watch('value', () => {
  draw();
  reconcile();
});
paint();
