// Opens many connections, proves each with one byte there and back, says so, and holds them until its stdin ends.
// Usage: bun idle-client.ts IP PORT COUNT ; prints `ready COUNT`, or `failed ...` and ends with status 1.

const [ip = "", port = "", wanted = ""] = process.argv.slice(2);
const count = Number(wanted);

/** Connections being set up at one time: enough to be quick, few enough for a listen queue. */
const OPENING_MAX = 128;
const STALL_MS = 15_000;

const HELLO = new Uint8Array([0]);
const held: Bun.Socket[] = [];
let started = 0;
let stall = setTimeout(stalled, STALL_MS);

function stalled(): void {
  fail(`no progress for ${STALL_MS} ms`);
}

function fail(why: string): void {
  console.log(`failed: ${why}; ${held.length} of ${count} connections answered`);
  process.exit(1);
}

function openMore(): void {
  while (started < count && started - held.length < OPENING_MAX) {
    started += 1;
    void open();
  }
}

async function open(): Promise<void> {
  try {
    await Bun.connect({
      hostname: ip,
      port: Number(port),
      socket: {
        open: (socket) => void socket.write(HELLO),
        data: (socket) => answered(socket),
        close: () => fail("a connection was closed"),
        error: (_, error) => fail(String(error)),
      },
    });
  } catch (error) {
    fail(String(error));
  }
}

function answered(socket: Bun.Socket): void {
  held.push(socket);
  clearTimeout(stall);
  if (held.length === count) console.log(`ready ${count}`);
  else stall = setTimeout(stalled, STALL_MS);
  openMore();
}

openMore();
// Ends with its parent, whatever that one does.
for await (const _ of Bun.stdin.stream()) continue;
process.exit(0);

export {};
