// Light or dark, remembered in this browser; without a choice the system decides, as Gradio does.
const button = element.querySelector('.tr-theme');
const KEY = 'troupe-theme';
const asked = new URLSearchParams(location.search).get('__theme');
let chosen = null;
try {
  chosen = localStorage.getItem(KEY);
} catch {
  /* private window: the system decides */
}
if (chosen && !asked) document.body.classList.toggle('dark', chosen === 'dark');
button.addEventListener('click', () => {
  const dark = document.body.classList.toggle('dark');
  try {
    localStorage.setItem(KEY, dark ? 'dark' : 'light');
  } catch {
    /* not remembered, still switched */
  }
});
