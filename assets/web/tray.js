// The sample cast: a click puts one of them on the desk. The event names the picture by its key.
const tray = element.querySelector('.tr-tray');

function paint() {
  tray.replaceChildren();
  for (const part of (props.value || { parts: [] }).parts) {
    const row = document.createElement('div');
    row.className = 'tr-strip';
    row.setAttribute('role', 'group');
    row.setAttribute('aria-label', part.title);
    for (const each of part.samples) {
      const pick = document.createElement('button');
      pick.type = 'button';
      pick.className = 'tr-sample' + (part.role === 'background' ? ' wide' : '');
      pick.dataset.key = each.key;
      pick.title = each.name;
      pick.setAttribute('aria-label', 'Add ' + each.name);
      const picture = document.createElement('img');
      picture.src = each.url;
      picture.alt = '';
      pick.append(picture);
      row.append(pick);
    }
    tray.append(row);
  }
}

tray.addEventListener('click', (event) => {
  const key = event.target.closest('.tr-sample')?.dataset.key;
  if (key) trigger('pick', { key });
});

watch('value', paint);
paint();
