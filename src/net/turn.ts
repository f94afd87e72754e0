// The end of an event-loop turn: runs after every socket that was ready has been served, before the loop waits again.
// Writing once per turn, not once per ready socket, is the data path's main saving: fewer TLS records, segments and wake-ups.

export interface EndOfTurn {
  /** Called once per turn in which schedule() was called. May not throw. */
  endOfTurn(): void;
}

let scheduled: EndOfTurn[] = [];
let spare: EndOfTurn[] = [];
let armed = false;
let turn = 0;

/** The caller makes sure that it is scheduled once per turn only. */
export function scheduleEndOfTurn(task: EndOfTurn): void {
  scheduled.push(task);
  if (!armed) arm();
}

/** Another number in each turn. */
export function currentTurn(): number {
  if (!armed) arm();
  return turn;
}

function arm(): void {
  armed = true;
  // Microtasks run after every socket callback; only setImmediate runs after the whole batch.
  setImmediate(run);
}

function run(): void {
  const tasks = scheduled;
  scheduled = spare;
  try {
    for (let i = 0; i < tasks.length; i++) tasks[i]!.endOfTurn();
  } finally {
    tasks.length = 0;
    spare = tasks;
    turn++;
    armed = false;
    if (scheduled.length > 0) arm();
  }
}
