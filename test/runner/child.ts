// One child process with a time limit: its output is kept (bounded). On the limit it is asked to end, so that it can end what it
// started elsewhere (the demo's box is a process group of its own); then its whole process group dies.

/** Output kept per child: enough for the last tests and a stack trace; the head is dropped. */
const OUTPUT_CHARS_MAX = 256 * 1024;

/** What a child that was asked to end may take for it. */
const ENDING_MS_MAX = 10_000;
/** Processes that escaped the group may hold the pipes for ever: nobody waits for their words longer than this. */
const LAST_WORDS_MS_MAX = 2_000;

export interface ChildResult {
  readonly exitCode: number;
  readonly timedOut: boolean;
  readonly seconds: number;
  /** stdout and stderr as they came, the last OUTPUT_CHARS_MAX characters. */
  readonly output: string;
}

export interface ChildOptions {
  readonly limitSeconds: number;
  /** Given each piece of the output as it comes. */
  readonly hear?: (text: string) => void;
  /** Variables beside ours. */
  readonly env?: Readonly<Record<string, string>>;
}

const running = new Set<number>();

/** Ends every child still running, with its process group. */
export function endChildren(): void {
  for (const pid of running) signalGroup(pid, "SIGKILL");
}

export async function runChild(argv: readonly string[], options: ChildOptions): Promise<ChildResult> {
  const started = performance.now();
  const child = Bun.spawn([...argv], { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...options.env }, detached: true });
  running.add(child.pid);
  let timedOut = false;
  let killing: NodeJS.Timeout | undefined;
  const timer = setTimeout(() => {
    timedOut = true;
    signalGroup(child.pid, "SIGTERM");
    killing = setTimeout(() => signalGroup(child.pid, "SIGKILL"), ENDING_MS_MAX);
  }, options.limitSeconds * 1000);
  const collected = new Tail(options.hear ?? (() => {}));
  const reading = Promise.all([collected.read(child.stdout), collected.read(child.stderr)]);
  const exitCode = await child.exited;
  clearTimeout(timer);
  clearTimeout(killing);
  // What the child left behind would hold the pipes open, and ports and processors after that.
  signalGroup(child.pid, "SIGKILL");
  await Promise.race([reading, Bun.sleep(LAST_WORDS_MS_MAX)]);
  running.delete(child.pid);
  return { exitCode, timedOut, seconds: (performance.now() - started) / 1000, output: collected.text };
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // ESRCH: the group is empty, which is what was wanted.
  }
}

class Tail {
  text = "";
  readonly #hear: (text: string) => void;

  constructor(hear: (text: string) => void) {
    this.#hear = hear;
  }

  async read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      const text = decoder.decode(chunk, { stream: true });
      this.#hear(text);
      this.text = (this.text + text).slice(-OUTPUT_CHARS_MAX);
    }
  }
}
