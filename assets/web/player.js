// Put before film.js and clips.js, which need it: where a clip's files are, and what is said where one cannot be shown.

// Relative: the page may lie below another path. Browsers keep what they have seen: `version` changes with the clip's file,
// and `again` is the time, where what came could not be shown.
const clipFile = ({ id, version }, kind, again = 0) =>
  'clips/' + id + '/' + kind + '?v=' + (version || '') + '.' + again;

const NOT_SHOWN = {
  401: 'Log in again: reload the page.',
  404: 'It was moved or deleted.',
  410: 'This link has ended.',
  200: 'Its file is damaged.',
};

async function whyNot(address) {
  try {
    const { status } = await fetch(address, { method: 'HEAD', cache: 'no-store' });
    return NOT_SHOWN[status] || 'Troupe answers with an error (' + status + ').';
  } catch {
    return 'Troupe does not answer.';
  }
}

// Where a film cannot be shown its place says why, until `retry` has given it another address.
function mind(film, place, retry) {
  film.addEventListener('error', async () => {
    const address = film.src,
      reason = await whyNot(address);
    if (!film.isConnected || film.src !== address) return; // another one is asked for meanwhile
    const focused = document.activeElement === film;
    place.replaceChildren(
      lostFilm(reason, () => {
        place.replaceChildren(film);
        retry();
        film.focus();
      }),
    );
    if (focused) place.querySelector('button').focus();
  });
}

// The message, with a button.
function lostFilm(reason, retry) {
  const line = document.createElement('div'),
    said = document.createElement('span'),
    again = document.createElement('button');
  line.className = 'tr-message bad tr-lost';
  line.setAttribute('role', 'alert');
  said.textContent = 'This clip cannot be shown. ' + reason;
  again.type = 'button';
  again.className = 'tr-do';
  again.textContent = 'Try again';
  again.addEventListener('click', retry);
  line.append(said, again);
  return line;
}
