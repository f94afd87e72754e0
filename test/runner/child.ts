// One child process with a time limit: its output is kept (bounded), and on the limit its whole process group dies.

/** Output kept per child: enough for the last tests and a stack trace; the head is dropped. */
const OUTPUT_CHARS_MAX = 256 * 1024;

export interface ChildResult {
  readonly exitCode: number;
  readonly timedOut: boolean;
  readonly seconds: number;
  /** stdout and stderr as they came, the last OUTPUT_CHARS_MAX characters. */
  readonly output: string;
}

export interface ChildOptions {
  readonly limitSeconds: number;
  /** Also shown while it runs. */
  readonly echo: boolean;
}

const running = new Set<number>();

/** Ends every child still running, with its process group. */
export function endChildren(): void {
  for (const pid of running) killGroup(pid);
}

export async function runChild(argv: readonly string[], options: ChildOptions): Promise<ChildResult> {
  const started = performance.now();
  const child = Bun.spawn([...argv], { stdio: ["ignore", "pipe", "pipe"], env: process.env, detached: true });
  running.add(child.pid);
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    killGroup(child.pid);
  }, options.limitSeconds * 1000);
  const collected = new Tail(options.echo);
  const reading = Promise.all([collected.read(child.stdout), collected.read(child.stderr)]);
  const exitCode = await child.exited;
  clearTimeout(timer);
  // What the child left behind would hold the pipes open, and ports and processors after that.
  killGroup(child.pid);
  await reading;
  running.delete(child.pid);
  return { exitCode, timedOut, seconds: (performance.now() - started) / 1000, output: collected.text };
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // ESRCH: the group is empty, which is what was wanted.
  }
}

class Tail {
  text = "";
  readonly #echo: boolean;

  constructor(echo: boolean) {
    this.#echo = echo;
  }

  async read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      const text = decoder.decode(chunk, { stream: true });
      if (this.#echo) process.stdout.write(text);
      this.text = (this.text + text).slice(-OUTPUT_CHARS_MAX);
    }
  }
}
