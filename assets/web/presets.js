// Presets as picture cards. A card is a button; its event names the preset.
const strip = element.querySelector('.tr-presets');

function paint() {
  const value = props.value || { groups: [] };
  const scrolled = Array.from(strip.querySelectorAll('.tr-strip')).map((row) => row.scrollLeft);
  strip.replaceChildren();
  for (const group of value.groups) {
    const title = document.createElement('h3');
    title.textContent = group.title;
    const row = document.createElement('div');
    row.className = 'tr-strip';
    for (const preset of group.cards) {
      const card = document.createElement('button');
      card.type = 'button';
      card.className = 'tr-preset';
      card.dataset.key = preset.key;
      card.title = preset.line;
      card.setAttribute('aria-pressed', String(preset.key === value.selected));
      if (preset.picture) {
        const picture = document.createElement('img');
        picture.src = preset.picture;
        picture.alt = '';
        picture.loading = 'lazy';
        card.append(picture);
      }
      for (const [tag, text] of [
        ['b', preset.title],
        ['i', preset.format],
      ]) {
        const line = document.createElement(tag);
        line.textContent = text;
        card.append(line);
      }
      row.append(card);
    }
    strip.append(title, row);
  }
  const line = document.createElement('p');
  line.className = 'tr-line';
  const all = value.groups.flatMap((group) => group.cards);
  const picked = all.find((preset) => preset.key === value.selected);
  line.textContent = picked ? picked.title + ': ' + picked.line : value.hint || '';
  strip.append(line);
  strip.querySelectorAll('.tr-strip').forEach((row, i) => {
    row.scrollLeft = scrolled[i] || 0;
  });
}

let chosen = null; // the card that was clicked, until the page is told
let choosing = null;

function choose() {
  clearTimeout(choosing);
  if (chosen) trigger('choose', { key: chosen });
  chosen = null;
}

strip.addEventListener('click', (event) => {
  const card = event.target.closest('.tr-preset');
  if (!card) return;
  for (const each of strip.querySelectorAll('.tr-preset')) each.setAttribute('aria-pressed', String(each === card));
  clearTimeout(choosing); // of several quick clicks the last one is meant
  chosen = card.dataset.key;
  choosing = setTimeout(choose, 180);
});

document.addEventListener(
  'click',
  (event) => {
    // whatever is pressed next is meant for this preset
    if (!strip.contains(event.target)) choose();
  },
  true,
);

watch('value', unpressed(strip, paint));
paint();
