// `npm run fuzz -- [name...] [--iterations N] [--seed S] [--minutes M] [--list]`: the properties of every parser, with random input.
//
// A fuzzer is a module in this folder that exports
//     name: string                                what it fuzzes, e.g. "hpack"
//     run({ seed, iterations }): { iterations }   throws when a property does not hold; may return a promise
// and draws everything it does from `seed`. A module with neither export is a helper.
//
// Each fuzzer runs in a process of its own, in slices with seeds S, S+1, ...; a failure, a crash or a hang names the slice
// and prints the command that repeats it. No fuzzer at all, or an unknown name, fails.

import { writeSync } from "node:fs";
import { join, resolve } from "node:path";
import { cpuSeconds } from "../../bench/lib/accounting.ts";

const ITERATIONS_DEFAULT = 100_000;
/** Small enough that repeating a failing slice takes seconds, large enough that its set-up does not count. */
const SLICE_ITERATIONS = 1_000;
/** A slice takes a second or two of processor time; one that has used so much, or has not ended in so long a time, hangs. */
const SLICE_CPU_SECONDS_MAX = 60;
const SLICE_SECONDS_MAX = 900;
const LOOK_SECONDS = 5;
const SEED_MAX = 0x7fff_ffff;
/** Marks a report line of the child among whatever the fuzzer prints. */
const REPORT_MARK = "\u001efuzz ";

export interface FuzzRun {
  readonly seed: number;
  readonly iterations: number;
}

export interface Fuzzer {
  readonly name: string;
  readonly run: (run: FuzzRun) => { readonly iterations: number } | Promise<{ readonly iterations: number }>;
}

export interface FuzzOptions {
  /** Empty: all of them. */
  readonly names: readonly string[];
  readonly seed: number;
  readonly iterations: number;
  /** Goes on with fresh slices until this much time is spent on each fuzzer, if that is longer than the iterations take. */
  readonly minutes: number;
  readonly folder: string;
}

interface Slice extends FuzzRun {
  readonly kind: "slice";
}
type ChildReport =
  | Slice
  | { readonly kind: "sliceDone"; readonly iterations: number }
  | { readonly kind: "failed"; readonly message: string };

export interface FuzzVerdict {
  readonly name: string;
  readonly iterations: number;
  readonly seconds: number;
  readonly failure: null | { readonly message: string; readonly repeat: string };
}

/** Runs the fuzzers one after the other and prints each verdict. Resolves to the verdicts; throws when there is nothing to run. */
export async function fuzz(options: FuzzOptions): Promise<FuzzVerdict[]> {
  const files = await fuzzerFiles(options.folder);
  const unknown = options.names.filter((name) => !files.has(name));
  if (unknown.length > 0) throw new Error(`no fuzzer named ${unknown.join(", ")}; there are: ${[...files.keys()].join(", ")}`);
  const names = options.names.length > 0 ? options.names : [...files.keys()];
  if (names.length === 0) throw new Error(`no fuzzer in ${options.folder}: a run that tries nothing fails`);
  const verdicts: FuzzVerdict[] = [];
  for (const name of names) {
    const verdict = await runInChild({ name, file: files.get(name) ?? "", options });
    console.log(describeVerdict(verdict, options.seed));
    verdicts.push(verdict);
  }
  return verdicts;
}

/** Name to file. Throws for a module that is half a fuzzer, and for two of one name. */
export async function fuzzerFiles(folder: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const files = [...new Bun.Glob("*.ts").scanSync({ cwd: folder })].sort();
  for (const file of files) {
    if (file.endsWith(".test.ts") || file === "fuzz.ts") continue;
    const path = join(folder, file);
    const fuzzer = await loadFuzzer(path);
    if (fuzzer === null) continue;
    if (found.has(fuzzer.name)) throw new Error(`${file}: another fuzzer is named ${fuzzer.name} too`);
    found.set(fuzzer.name, path);
  }
  return found;
}

async function loadFuzzer(path: string): Promise<Fuzzer | null> {
  const module: { name?: unknown; run?: unknown } = await import(path);
  if (module.name === undefined && module.run === undefined) return null;
  if (typeof module.name !== "string" || typeof module.run !== "function") {
    throw new Error(`${path}: a fuzzer exports name (a string) and run (a function); a helper exports neither`);
  }
  return { name: module.name, run: module.run as Fuzzer["run"] };
}

interface ChildTask {
  readonly name: string;
  readonly file: string;
  readonly options: FuzzOptions;
}

async function runInChild({ name, file, options }: ChildTask): Promise<FuzzVerdict> {
  const started = performance.now();
  const task = JSON.stringify({ file, seed: options.seed, iterations: options.iterations, minutes: options.minutes });
  const child = Bun.spawn([process.execPath, import.meta.path, "--child", task], { stdio: ["ignore", "pipe", "inherit"] });
  let slice: Slice | null = null;
  let iterations = 0;
  let message: string | null = null;
  let since = { seconds: started / 1000, cpuSeconds: 0 };
  // By processor time: on a busy machine a slice may wait for long, and a fuzzer that runs at low priority does.
  const watchdog = setInterval(() => {
    const usedSeconds = cpuSeconds([child.pid]) - since.cpuSeconds;
    const seconds = performance.now() / 1000 - since.seconds;
    if (usedSeconds < SLICE_CPU_SECONDS_MAX && seconds < SLICE_SECONDS_MAX) return;
    message ??= `no progress for ${seconds.toFixed(0)} s, ${usedSeconds.toFixed(0)} s of processor time: it hangs, or a slice of ${SLICE_ITERATIONS} iterations is too slow`;
    child.kill("SIGKILL");
  }, LOOK_SECONDS * 1000);
  for await (const report of reportsOf(child.stdout)) {
    since = { seconds: performance.now() / 1000, cpuSeconds: cpuSeconds([child.pid]) };
    if (report.kind === "slice") slice = report;
    else if (report.kind === "sliceDone") iterations += report.iterations;
    else message = report.message;
  }
  const exitCode = await child.exited;
  clearInterval(watchdog);
  if (exitCode !== 0) message ??= `the process ended with status ${exitCode}, signal ${child.signalCode ?? "none"}`;
  if (iterations === 0) message ??= "not one input was tried";
  const seconds = (performance.now() - started) / 1000;
  const failure = message === null ? null : { message, repeat: repeatCommand(name, slice ?? options) };
  return { name, iterations, seconds, failure };
}

const repeatCommand = (name: string, slice: FuzzRun): string =>
  `npm run fuzz -- ${name} --seed ${slice.seed} --iterations ${slice.iterations}`;

function describeVerdict(verdict: FuzzVerdict, seed: number): string {
  const head = `${verdict.name}: ${verdict.iterations} inputs, seed ${seed}, ${verdict.seconds.toFixed(1)} s`;
  if (verdict.failure === null) return `ok   ${head}`;
  return `FAIL ${head}\n${verdict.failure.message.replace(/^/gm, "     ")}\n     repeat with: ${verdict.failure.repeat}`;
}

async function* reportsOf(stdout: ReadableStream<Uint8Array>): AsyncGenerator<ChildReport> {
  const decoder = new TextDecoder();
  let pending = "";
  for await (const chunk of stdout) {
    pending += decoder.decode(chunk, { stream: true });
    const lines = pending.split("\n");
    pending = lines.pop() ?? "";
    for (const line of lines) {
      if (line.startsWith(REPORT_MARK)) yield JSON.parse(line.slice(REPORT_MARK.length)) as ChildReport;
      else console.log(line);
    }
  }
}

/** The child: slice after slice, each announced before it starts, so that the parent knows where it hung. */
async function runSlices(task: { file: string; seed: number; iterations: number; minutes: number }): Promise<number> {
  const deadlineMs = performance.now() + task.minutes * 60_000;
  let current: FuzzRun = { seed: task.seed, iterations: 0 };
  try {
    const fuzzer = await loadFuzzer(task.file);
    if (fuzzer === null) throw new Error(`${task.file} is no fuzzer`);
    for (let done = 0, seed = task.seed; done < task.iterations || performance.now() < deadlineMs; seed += 1) {
      const left = task.iterations - done;
      current = { seed: seed & SEED_MAX, iterations: left > 0 ? Math.min(left, SLICE_ITERATIONS) : SLICE_ITERATIONS };
      reportUp({ kind: "slice", ...current });
      const ran = await fuzzer.run(current);
      if (ran.iterations < 1) throw new Error("run() says it tried no input");
      reportUp({ kind: "sliceDone", iterations: ran.iterations });
      done += current.iterations;
    }
    return 0;
  } catch (error) {
    reportUp({ kind: "failed", message: error instanceof Error ? (error.stack ?? error.message) : String(error) });
    return 1;
  }
}

/** Written at once: a report still in a buffer when a slice hangs would name the wrong one. */
function reportUp(report: ChildReport): void {
  const bytes = Buffer.from(`${REPORT_MARK}${JSON.stringify(report)}\n`);
  for (let sent = 0; sent < bytes.length; ) sent += writeSync(1, bytes, sent);
}

/** Throws a message for the operator when the arguments make no sense. */
export function parseFuzzArguments(args: readonly string[]): FuzzOptions & { readonly list: boolean } {
  const names: string[] = [];
  const numbers = new Map<string, number>();
  let list = false;
  for (let i = 0; i < args.length; i += 1) {
    const arg = args[i] ?? "";
    if (arg === "--list") list = true;
    else if (arg === "--iterations" || arg === "--seed" || arg === "--minutes") numbers.set(arg, numberAfter(arg, args[(i += 1)]));
    else if (arg.startsWith("-")) throw new Error(`unknown option ${arg}; there are --iterations N, --seed S, --minutes M, --list`);
    else names.push(arg);
  }
  return {
    names,
    list,
    seed: numbers.get("--seed") ?? crypto.getRandomValues(new Uint32Array(1))[0]! & SEED_MAX,
    iterations: numbers.get("--iterations") ?? ITERATIONS_DEFAULT,
    minutes: numbers.get("--minutes") ?? 0,
    folder: import.meta.dir,
  };
}

function numberAfter(option: string, text: string | undefined): number {
  const fraction = option === "--minutes" ? /^\d{1,6}(\.\d{1,6})?$/ : /^\d{1,10}$/;
  if (text === undefined || !fraction.test(text)) throw new Error(`${option} wants a number, got ${text ?? "nothing"}`);
  const value = Number(text);
  if (option === "--seed" && value > SEED_MAX) throw new Error(`--seed is at most ${SEED_MAX}`);
  if (option === "--iterations" && value < 1) throw new Error("--iterations is at least 1");
  return value;
}

async function main(args: readonly string[]): Promise<number> {
  if (args[0] === "--child") return await runSlices(JSON.parse(args[1] ?? ""));
  try {
    const options = parseFuzzArguments(args);
    if (options.list) {
      console.log([...(await fuzzerFiles(resolve(options.folder))).keys()].join("\n"));
      return 0;
    }
    const verdicts = await fuzz(options);
    return verdicts.every((verdict) => verdict.failure === null) ? 0 : 1;
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    return 2;
  }
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
