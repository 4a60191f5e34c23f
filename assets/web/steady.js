// Put before each of the other scripts by app/ui/own.py.
// A button that is pressed is not drawn anew before it is let go: the click would be lost with the node it began on.
function unpressed(place, draw) {
  let pressed = false,
    late = false;
  place.addEventListener(
    'pointerdown',
    (event) => {
      pressed = event.button === 0 && !!event.target.closest('button');
    },
    true,
  );
  for (const end of ['pointerup', 'pointercancel', 'contextmenu']) {
    document.addEventListener(
      end,
      () =>
        setTimeout(() => {
          // after the click
          pressed = false;
          if (late) {
            late = false;
            draw();
          }
        }),
      true,
    );
  }
  return () => {
    if (pressed) late = true;
    else draw();
  };
}
