// Child processes of the benchmark: servers that run until they are ended, and programs that run once within a time limit.
// Every one is ours and is ended by its own process id.

import { closeSync, openSync, readFileSync } from "node:fs";

/** What one program said and how it ended. */
export interface Ran {
  readonly exitCode: number;
  readonly timedOut: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly limitSeconds: number;
  readonly env?: Readonly<Record<string, string>>;
}

export async function run(argv: readonly string[], options: RunOptions): Promise<Ran> {
  const child = Bun.spawn([...argv], { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...options.env } });
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    child.kill("SIGKILL");
  }, options.limitSeconds * 1000);
  const [stdout, stderr, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  clearTimeout(timer);
  return { exitCode, timedOut, stdout, stderr };
}

/** Runs a set-up command that must succeed. */
export function must(argv: readonly string[], input?: string): string {
  const done = Bun.spawnSync([...argv], { stdin: input === undefined ? "ignore" : Buffer.from(input), stdout: "pipe", stderr: "pipe" });
  if (done.exitCode !== 0) throw new Error(`${argv.join(" ")}: exit status ${done.exitCode}: ${done.stderr.toString().trim()}`);
  return done.stdout.toString();
}

/** Hard limit of open descriptors per process, ours and so our children's. */
export function descriptorLimit(): number {
  const line = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"));
  return line === null ? 0 : Number(line[1]);
}

/** Time a server gets to end by itself before it is killed. */
const STOP_GRACE_MS = 3_000;

export interface ServerOptions {
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly logFile: string;
  readonly cwd?: string;
}

/** A program that serves until `stop`. Its output goes to a file, so that logging costs what a file costs. */
export class Server {
  readonly pid: number;
  readonly logFile: string;
  readonly #child: Bun.Subprocess;

  constructor(options: ServerOptions) {
    this.logFile = options.logFile;
    const log = openSync(options.logFile, "a");
    this.#child = Bun.spawn([...options.argv], {
      stdio: ["ignore", log, log],
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    closeSync(log);
    this.pid = this.#child.pid;
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The end of its output. */
  logTail(chars = 2_000): string {
    return readFileSync(this.logFile, "utf8").slice(-chars);
  }

  async stop(): Promise<void> {
    if (!this.alive) return;
    this.#child.kill("SIGTERM");
    const killer = setTimeout(() => this.#child.kill("SIGKILL"), STOP_GRACE_MS);
    await this.#child.exited;
    clearTimeout(killer);
  }
}

const POLL_MS = 20;

/** Waits until `condition` holds. Throws, with the server's last words, when it dies first or `limitSeconds` pass. */
export async function until(condition: () => boolean | Promise<boolean>, what: string, limitSeconds: number, server?: Server): Promise<void> {
  const deadline = performance.now() + limitSeconds * 1000;
  while (!(await condition())) {
    if (server !== undefined && !server.alive) throw new Error(`${what}: the process ended: ${server.logTail()}`);
    if (performance.now() > deadline) throw new Error(`${what}: not so after ${limitSeconds} s${server === undefined ? "" : `: ${server.logTail()}`}`);
    await Bun.sleep(POLL_MS);
  }
}
