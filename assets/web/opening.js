// What is said while the desk is not here yet. The event that fetches it can get lost on a slow line: it is asked for
// again, and in the end the person is told.
const line = element.querySelector('.tr-opening');
const SAYS = 4000,
  AGAIN = 20000,
  TIMES = 3; // milliseconds until it is said, and until it is asked for again
let asked = 0,
  timers = [];

function wait() {
  timers = [setTimeout(() => say('Opening your desk…'), asked ? 0 : SAYS), setTimeout(lost, AGAIN)];
}

function lost() {
  if (++asked <= TIMES) {
    trigger('again');
    wait();
    return;
  }
  const again = document.createElement('button');
  again.type = 'button';
  again.className = 'tr-do';
  again.textContent = 'Reload';
  again.addEventListener('click', () => location.reload());
  say('Your desk does not open: Troupe does not answer. Nothing is lost.');
  line.firstChild.classList.add('bad');
  line.firstChild.append(again);
}

function say(text) {
  const box = document.createElement('div');
  box.className = 'tr-message';
  box.setAttribute('role', 'status');
  box.append(text + ' ');
  line.replaceChildren(box);
}

function opened() {
  if (!props.value?.open) return;
  timers.forEach(clearTimeout);
  line.replaceChildren();
}

watch('value', opened);
wait();
opened();
