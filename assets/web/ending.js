// How far the clip is, in the tab's title, and a notification when it is over for who has asked for one.
//
// The page's clock stands still in a hidden tab. There the server is asked to speak up instead, once: it holds the
// answer back until there is something new. So nothing polls, one connection is open, and only while the tab is hidden,
// a clip is being made, and the person wants to be told.
const box = element.querySelector('input'),
  note = element.querySelector('.tr-note');
const KEY = 'troupe-tell';
const NAME = 'Troupe';
const place = document.querySelector('#tr-go');
let now = null,
  told = null,
  held = null;

const title = (words) => {
  document.title = words ? words + ' · ' + NAME : NAME;
};
const wants = () => box.checked && 'Notification' in window && Notification.permission === 'granted';

function notify(job, words) {
  if (told === job || !wants()) return;
  told = job;
  try {
    const said = new Notification(NAME, { body: words, tag: 'troupe-' + job }); // the tag: several tabs, one message
    said.onclick = () => {
      window.focus();
      said.close();
    };
  } catch {
    /* phones take them from service workers only */
  }
}

const WORDS = {
  done: ['Done', 'Your clip is done.'],
  failed: ['Not made', 'Your clip could not be made.'],
  interrupted: ['Cut off', 'Your clip was cut off.'],
};

function over(job, state) {
  const [short, long] = WORDS[state] || ['', ''];
  title(short);
  if (long && (document.hidden || !document.hasFocus())) notify(job, long);
}

function under(state, percent) {
  title(state === 'waiting' ? 'Waiting' : percent + ' %');
}

function read() {
  const bar = place.querySelector('#tr-progress [data-job]');
  const was = now;
  now = bar ? { job: bar.dataset.job, state: bar.dataset.state, percent: Number(bar.dataset.percent) } : null;
  if (now && !['waiting', 'running'].includes(now.state)) {
    if (was) over(was.job, now.state);
    now = null;
  } else if (now && document.hidden && !wants())
    title('Working'); // from now on no number would be true
  else if (now) under(now.state, now.percent);
  else if (was) over(was.job, 'done');
  listen();
}

async function listen() {
  if (held || !now || !document.hidden || !wants()) return;
  held = new AbortController();
  const { job } = now;
  let seen = now.percent;
  try {
    while (document.hidden && wants()) {
      const answer = await fetch('clips/' + job + '/state?seen=' + seen, { signal: held.signal, cache: 'no-store' });
      if (!answer.ok) break;
      const { state, percent } = await answer.json();
      if (!['waiting', 'running'].includes(state)) {
        over(job, state);
        break;
      }
      seen = percent;
      under(state, percent);
    }
  } catch {
    /* looked at again, or the server is gone: the page's own clock will tell */
  }
  held = null;
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) {
    held?.abort();
    trigger('look'); // a clip may have been started in another tab
  }
  read();
});
for (const kind of ['pointerdown', 'keydown']) {
  document.addEventListener(
    kind,
    () => {
      if (!now) title('');
    },
    true,
  ); // it was seen
}

box.addEventListener('change', async () => {
  note.textContent = '';
  if (box.checked && (await Notification.requestPermission()) !== 'granted') {
    box.checked = false;
    note.textContent = 'This browser does not allow notifications from this address.';
  }
  try {
    localStorage.setItem(KEY, box.checked ? '1' : '');
  } catch {
    /* a private window forgets */
  }
});
try {
  box.checked = localStorage.getItem(KEY) === '1' && Notification.permission === 'granted';
} catch {
  /* none */
}
if (!('Notification' in window)) element.querySelector('label').hidden = true;

new MutationObserver(read).observe(place, {
  childList: true,
  subtree: true,
  attributes: true,
  attributeFilter: ['data-percent', 'data-state', 'data-job'],
});
read();
