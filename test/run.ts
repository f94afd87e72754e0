// `npm test`: everything that shows the program to be right, sealed in its own namespaces, as named steps with their times.
//
//   npm test                            types, every test file, a short fuzz run, the demo
//   npm test -- src/wire test/kit       only the test files below these paths
//   npm test -- typecheck fuzz demo     only these steps
//
// Each test file runs in a process and a network namespace of its own: no test sees another's ports, mounts or leftovers,
// and a hang names its file. A test is skipped through test/kit/skip.ts, which puts the reason in its name; a skip
// without a reason fails. The last line is `N passed, N failed, N skipped`, each step counting as one test.

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { LOG_FOLDER_VARIABLE } from "./kit/log-path.ts";
import { endChildren, runChild, type ChildResult } from "./runner/child.ts";
import { FailureLogs } from "./runner/failure-logs.ts";
import { parseJunit, type TestResult } from "./runner/junit.ts";
import { resealed, sealedArgv } from "./runner/sealed.ts";

const ROOT = resolve(import.meta.dir, "..");

/** Test clients that .ci/run builds; and where Debian keeps servers, which an ordinary user's PATH lacks. */
const TEST_CLIENTS = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "weft-ci/bin");

/** The aim is 20 minutes on two cores. A machine half as fast may take twice that; what runs longer hangs. */
const BUDGET_SECONDS = 45 * 60;
const BUDGET_SPENT = `not run: the budget of ${BUDGET_SECONDS} s is spent`;
const TYPECHECK_LIMIT_SECONDS = 300;
const UNIT_FILE_LIMIT_SECONDS = 300;
/** Files under test/ move real traffic: a 10 GB stream, ten thousand connections. */
const SYSTEM_FILE_LIMIT_SECONDS = 480;
/** Of one test that names no limit of its own: it catches a hang. Computing for seconds on a busy machine is none, and a wait that is in vain says more of itself. */
const TEST_LIMIT_MS = 60_000;
const FUZZ_LIMIT_SECONDS = 300;
const DEMO_LIMIT_SECONDS = 240;

/** Unit tests leave cores idle while they start; real traffic is measured in time and runs alone. */
const UNIT_FILES_AT_ONCE = 2;

/** Inputs per fuzzer in the short run; the long one is `npm run fuzz`. */
const FUZZ_ITERATIONS = 5_000;

/** Last lines of a failed child's output that are printed where it failed. */
const OUTPUT_LINES_SHOWN = 60;

/** Folder with JUnit reports of test files that ran elsewhere (on a cluster), each below its path with `.xml`, its output with `.log`: they are not run again. */
const REPORTS_ELSEWHERE = process.env["WEFT_TEST_REPORTS"];

/** Of the output before a test that was ended by its own limit. */
const LINES_BEFORE_TIMEOUT = 8;

/** Lines of the summary for all failures together: where only the end of a run's output is kept, it is all there is to go by. */
const SUMMARY_LINES = 50;
/** Of each failure, however many there are. */
const SUMMARY_LINES_MIN = 12;

interface Totals {
  passed: number;
  readonly failed: string[];
  readonly skipped: string[];
}

const totals: Totals = { passed: 0, failed: [], skipped: [] };
const startedMs = performance.now();
const elapsedSeconds = (): number => (performance.now() - startedMs) / 1000;

async function main(args: readonly string[]): Promise<number> {
  const outside = await resealed(import.meta.path, args);
  if (outside !== null) return outside;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      endChildren();
      process.exit(130);
    });
  }
  process.chdir(ROOT);
  process.env["PATH"] = [process.env["PATH"], TEST_CLIENTS, "/usr/local/sbin:/usr/sbin:/sbin"].join(":");
  const wanted = planOf(args);
  if (wanted.typecheck) await commandStep("typecheck", [process.execPath, tool("typescript/bin/tsc"), "--noEmit"], TYPECHECK_LIMIT_SECONDS);
  await testFilesStep(wanted.files);
  if (wanted.fuzz) await commandStep("fuzz", sealedArgv([process.execPath, "test/fuzz/fuzz.ts", "--iterations", `${FUZZ_ITERATIONS}`]), FUZZ_LIMIT_SECONDS);
  if (wanted.demo) await commandStep("demo", [process.execPath, "demo/demo.ts"], DEMO_LIMIT_SECONDS);
  return report();
}

interface Plan {
  readonly typecheck: boolean;
  readonly files: readonly string[];
  readonly fuzz: boolean;
  readonly demo: boolean;
}

function planOf(args: readonly string[]): Plan {
  const all = args.length === 0;
  const steps = new Set(["typecheck", "fuzz", "demo"]);
  const paths = args.filter((arg) => !steps.has(arg));
  const files = all ? allTestFiles() : paths.flatMap(testFilesBelow);
  return {
    typecheck: all || args.includes("typecheck"),
    files: [...new Set(files)],
    fuzz: all || args.includes("fuzz"),
    demo: all || args.includes("demo"),
  };
}

function allTestFiles(): string[] {
  const files = ["src", "test", "systemd", "deploy", "bench", "demo"].filter((folder) => existsSync(folder)).flatMap(testFilesBelow);
  if (files.length === 0) failed("test files", "no test file found: a run that proves nothing fails");
  return files;
}

function testFilesBelow(path: string): string[] {
  const absolute = resolve(ROOT, path);
  if (!existsSync(absolute)) {
    failed(path, "no such file or folder");
    return [];
  }
  if (/\.test\.ts$/.test(path)) return [relative(ROOT, absolute)];
  const found = [...new Bun.Glob("**/*.test.ts").scanSync({ cwd: absolute })];
  return found.filter((file) => !file.includes("node_modules/")).map((file) => relative(ROOT, join(absolute, file))).sort();
}

/** A program of a dependency; `node_modules/.bin` holds links that a copied tree may have lost. */
function tool(path: string): string {
  return join(ROOT, "node_modules", path);
}

async function commandStep(name: string, argv: readonly string[], limitSeconds: number): Promise<void> {
  heading(name);
  if (elapsedSeconds() >= BUDGET_SECONDS) return failed(name, BUDGET_SPENT);
  const result = await runChild(argv, { limitSeconds: withinBudget(limitSeconds) });
  const trouble = troubleOf(result, limitSeconds);
  if (trouble === null) passed(name, result.seconds);
  else failed(name, `${trouble}\n${lastLines(result.output)}`);
}

async function testFilesStep(files: readonly string[]): Promise<void> {
  const units = files.filter((file) => file.startsWith("src/"));
  const systems = files.filter((file) => !file.startsWith("src/"));
  if (files.length > 0) heading(`${files.length} test files`);
  const queue = units.values();
  const worker = async (): Promise<void> => {
    for (const file of queue) await runTestFile(file, UNIT_FILE_LIMIT_SECONDS);
  };
  await Promise.all(Array.from({ length: UNIT_FILES_AT_ONCE }, worker));
  for (const file of systems) await runTestFile(file, SYSTEM_FILE_LIMIT_SECONDS);
}

async function runTestFile(file: string, limitSeconds: number): Promise<void> {
  const elsewhere = REPORTS_ELSEWHERE === undefined ? "" : join(REPORTS_ELSEWHERE, `${file}.xml`);
  if (existsSync(elsewhere)) return recordElsewhere(file, elsewhere);
  if (elapsedSeconds() >= BUDGET_SECONDS) return failed(file, BUDGET_SPENT);
  const folder = mkdtempSync(join(tmpdir(), "weft-junit-"));
  const reportFile = join(folder, "junit.xml");
  const argv = [process.execPath, "test", `./${file}`, `--timeout=${TEST_LIMIT_MS}`, "--reporter=junit", `--reporter-outfile=${reportFile}`];
  using logs = new FailureLogs();
  const result = await runChild(sealedArgv(argv), { limitSeconds: withinBudget(limitSeconds), hear: (text) => logs.hear(text), env: { [LOG_FOLDER_VARIABLE]: logs.folder } });
  if (result.timedOut) logs.look();
  const tests = readReport(reportFile);
  rmSync(folder, { recursive: true, force: true });
  record(file, { result, tests, limitSeconds, logs: logs.shown() });
}

function recordElsewhere(file: string, reportFile: string): void {
  const tests = readReport(reportFile);
  const exitCode = typeof tests !== "string" && tests.every(({ outcome }) => outcome.kind !== "failed") ? 0 : 1;
  const outputFile = reportFile.replace(/xml$/, "log");
  const output = existsSync(outputFile) ? readFileSync(outputFile, "utf8") : "ran before, elsewhere";
  record(file, { result: { exitCode, timedOut: false, seconds: 0, output }, tests, limitSeconds: 0, logs: "" });
}

function readReport(reportFile: string): readonly TestResult[] | string {
  if (!existsSync(reportFile)) return "it wrote no report: no test in it, or it ended early";
  try {
    return parseJunit(readFileSync(reportFile, "utf8"));
  } catch (error) {
    return String(error);
  }
}

interface FileRun {
  readonly result: ChildResult;
  readonly tests: readonly TestResult[] | string;
  readonly limitSeconds: number;
  /** What the programs under test had logged when the first test failed. */
  readonly logs: string;
}

function record(file: string, { result, tests, limitSeconds, logs }: FileRun): void {
  if (typeof tests === "string" || result.timedOut) {
    const trouble = troubleOf(result, limitSeconds) ?? (typeof tests === "string" ? tests : "");
    return failed(file, `${trouble}; the last test named below had ended\n${lastLines(result.output)}\n${logs}`);
  }
  const failures = tests.filter((t) => t.outcome.kind === "failed");
  const passes = tests.filter((t) => t.outcome.kind === "passed").length;
  for (const t of tests) {
    if (t.outcome.kind === "skipped") totals.skipped.push(`${file}: ${t.name}`);
    if (t.outcome.kind === "failed") totals.failed.push(`${file}: ${t.name}\n${indent(`${t.outcome.message.trimEnd()}\n${saidBefore(t, result.output)}${t === failures[0] ? logs : ""}`.trimEnd())}`);
  }
  totals.passed += passes;
  const verdict = failures.length > 0 || result.exitCode !== 0 ? "FAIL" : "ok  ";
  print(`${verdict} ${file}  ${passes}/${tests.length}  ${result.seconds.toFixed(1)} s`);
  if (failures.length > 0) print(indent(`${lastLines(result.output)}\n${logs}`.trimEnd()));
  else if (result.exitCode !== 0) failed(file, `exit status ${result.exitCode} though no test failed\n${lastLines(result.output)}`);
}

/** Of a test that its own limit ended, which says nothing of where it was: the last lines before, where waits that take long are named. */
function saidBefore({ name, outcome }: TestResult, output: string): string {
  if (outcome.kind !== "failed" || !outcome.message.includes("timed out")) return "";
  const lines = output.split("\n");
  const end = lines.findIndex((line) => line.startsWith(`(fail) ${name} [`));
  const before = lines.slice(0, Math.max(0, end)).slice(-LINES_BEFORE_TIMEOUT);
  return before.length === 0 ? "" : `the output before that:\n${before.map((line) => `  ${line}\n`).join("")}`;
}

function troubleOf(result: ChildResult, limitSeconds: number): string | null {
  if (result.timedOut) return `still running after ${result.seconds.toFixed(0)} s (limit ${limitSeconds} s), ended`;
  return result.exitCode === 0 ? null : `exit status ${result.exitCode}`;
}

function withinBudget(limitSeconds: number): number {
  return Math.max(1, Math.min(limitSeconds, BUDGET_SECONDS - elapsedSeconds()));
}

function passed(name: string, seconds: number): void {
  totals.passed += 1;
  print(`ok   ${name}  ${seconds.toFixed(1)} s`);
}

function failed(name: string, why: string): void {
  totals.failed.push(`${name}\n${indent(why)}`);
  print(`FAIL ${name}\n${indent(why)}`);
}

function report(): number {
  if (totals.skipped.length > 0) print(`\nskipped:\n${totals.skipped.map(indent).join("\n")}`);
  const lines = Math.max(SUMMARY_LINES_MIN, Math.floor(SUMMARY_LINES / Math.max(1, totals.failed.length)));
  if (totals.failed.length > 0) print(`\nfailed:\n${totals.failed.map((failure) => indent(firstLines(failure, lines))).join("\n")}`);
  print(`\n${elapsedSeconds().toFixed(0)} s`);
  print(`${totals.passed} passed, ${totals.failed.length} failed, ${totals.skipped.length} skipped`);
  return totals.failed.length === 0 && totals.passed > 0 ? 0 : 1;
}

function heading(name: string): void {
  print(`== ${name} (at ${elapsedSeconds().toFixed(0)} s)`);
}

const indent = (text: string): string => text.replace(/^/gm, "    ");
const lastLines = (text: string): string => text.trimEnd().split("\n").slice(-OUTPUT_LINES_SHOWN).join("\n");
const firstLines = (text: string, count: number): string => {
  const lines = text.trimEnd().split("\n");
  const dropped = lines.length - count;
  return dropped > 0 ? [...lines.slice(0, count), `(${dropped} more lines above)`].join("\n") : lines.join("\n");
};
const print = (line: string): void => void process.stdout.write(`${line}\n`);

process.exit(await main(process.argv.slice(2)));
