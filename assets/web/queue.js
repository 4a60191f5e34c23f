// What is being made, what waits, and what was cut off: a row each, with what can be done about it.
const list = element.querySelector('.tr-queue');

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function button(action, text, label) {
  const made = make('button', 'tr-do', text);
  made.type = 'button';
  made.dataset.action = action;
  made.setAttribute('aria-label', label);
  made.title = label;
  return made;
}

function row(job) {
  const item = make('li', 'tr-job ' + job.state);
  item.dataset.id = job.id;
  const words = make('div', 'tr-jobwords');
  words.append(make('b', '', job.title || 'Untitled'), make('span', '', job.words));
  item.append(words);
  if (job.state === 'running') {
    const bar = make('div', 'tr-progress'),
      fill = make('div', 'tr-fill');
    fill.style.width = job.percent + '%';
    bar.setAttribute('role', 'progressbar');
    bar.setAttribute('aria-valuenow', String(job.percent));
    bar.setAttribute('aria-label', 'Making ' + job.title);
    bar.append(fill);
    item.append(bar);
  }
  const actions = make('div', 'tr-actions');
  for (const [action, text, hint] of job.actions)
    actions.append(button(action, text, hint + ': ' + (job.title || 'untitled')));
  item.append(actions);
  return item;
}

function paint() {
  const value = props.value || { jobs: [] };
  const held = list.contains(document.activeElement)
    ? [document.activeElement.closest('.tr-job')?.dataset.id, document.activeElement.dataset.action]
    : null;
  list.replaceChildren();
  if (value.trouble) {
    const trouble = make('p', 'tr-message bad', value.trouble);
    trouble.setAttribute('role', 'alert');
    list.append(trouble);
  }
  if (value.jobs.length) {
    const head = make('div', 'tr-queuehead');
    head.append(make('h3', '', value.paused ? 'Queue, paused' : 'Queue'));
    if (value.owner)
      head.append(
        value.paused
          ? button('go', 'Go on', 'Go on with the queue')
          : button('pause', 'Pause', 'Pause the queue after the clip that is being made'),
      );
    const items = make('ol', 'tr-jobs');
    items.append(...value.jobs.map(row));
    list.append(head, items);
  }
  if (!held) return;
  const again = Array.from(list.querySelectorAll('[data-action]')).find(
    (each) => each.dataset.action === held[1] && each.closest('.tr-job')?.dataset.id === held[0],
  );
  again?.focus({ preventScroll: true });
}

list.addEventListener('click', (event) => {
  const target = event.target.closest('button[data-action]');
  if (!target || target.disabled) return;
  trigger('act', { action: target.dataset.action, id: target.closest('.tr-job')?.dataset.id || null });
});

watch('value', unpressed(list, paint));
paint();
