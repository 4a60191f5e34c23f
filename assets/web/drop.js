// A clip of Troupe's, dropped anywhere on the page, opens as its scene. Pictures go where they are dropped; what is
// dropped beside everything must not take the page's place, as browsers would have it.
const sign = element.querySelector('.tr-drop');
const MP4 = /\.mp4$/i;
const LARGEST = TOLD.largest; // bytes, as the server has it
let away = 0;

const carries = (event) => event.dataTransfer?.types.includes('Files');
// While a file is held over the page its name is not told, but its kind is.
const isClip = (event) => {
  const items = Array.from(event.dataTransfer.items || []).filter((item) => item.kind === 'file');
  return items.length > 0 && items.every((item) => item.type === 'video/mp4');
};

function show(on) {
  clearTimeout(away);
  sign.classList.toggle('on', on);
  if (on) away = setTimeout(() => show(false), 400); // leaving the window is not told everywhere
}

document.addEventListener(
  'dragover',
  (event) => {
    if (!carries(event) || !isClip(event)) return;
    event.preventDefault();
    event.stopPropagation();
    event.dataTransfer.dropEffect = 'copy';
    show(true);
  },
  true,
);

document.addEventListener(
  'drop',
  (event) => {
    show(false);
    const files = carries(event) ? Array.from(event.dataTransfer.files) : [];
    if (!files.length || !files.every((file) => file.type === 'video/mp4' || MP4.test(file.name))) return;
    event.preventDefault();
    event.stopPropagation();
    bring(files[0]);
  },
  true,
);

// Nobody has taken it on its way up: it is not for this page.
document.addEventListener('dragover', (event) => {
  if (!carries(event) || event.defaultPrevented) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = 'none';
});
document.addEventListener('drop', (event) => {
  if (carries(event)) event.preventDefault();
});

function bring(file) {
  if (file.size >= LARGEST) {
    trigger('refuse', { name: file.name });
    return;
  }
  const input = document.querySelector('input[data-testid="Open a clip-upload-button"]');
  if (!input) return;
  const one = new DataTransfer();
  one.items.add(file);
  input.files = one.files;
  input.dispatchEvent(new Event('change', { bubbles: true }));
}
