// `npm run build [x64|arm64] [--outdir DIR]`: one compiled binary per architecture, dist/weft and dist/weft-arm64.
//
// Flags, and why: no .env and no bunfig.toml of the working directory may change what runs (either could preload code);
// minified bytecode starts faster (`weft version`: 10 to 20 ms against 60 to 80 from source text) and needs 46 MB against 50, for
// 5 MB more of file; split into chunks, modules that a role never loads take no memory. The data thread is an entry point of its own:
// a Worker is found by its path in the binary, see src/ztunnel/data-threads.ts.

import { mkdirSync, rmSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";

const ROOT = join(import.meta.dir, "..");
const ENTRY_POINTS = ["src/main.ts", "src/ztunnel/data-thread.ts", "src/waypoint/data-thread.ts"];

interface Target {
  readonly name: string;
  readonly outfile: string;
  readonly bunTarget: string;
}

const TARGETS: readonly Target[] = [
  { name: "x64", outfile: "dist/weft", bunTarget: "bun-linux-x64" },
  { name: "arm64", outfile: "dist/weft-arm64", bunTarget: "bun-linux-arm64" },
];

/** The machine's own architecture gets dist/weft; the other one its suffix. */
function targets(): readonly Target[] {
  if (process.arch !== "arm64") return TARGETS;
  return [{ ...TARGETS[1]!, outfile: "dist/weft" }, { ...TARGETS[0]!, outfile: "dist/weft-x64" }];
}

function commit(): string {
  const git = Bun.spawnSync(["git", "rev-parse", "--short=12", "HEAD"], { cwd: ROOT, stderr: "ignore" });
  return git.exitCode === 0 ? git.stdout.toString().trim() : "unknown";
}

const outfileOf = (target: Target): string => join(outdir, basename(target.outfile));

async function compile(target: Target, native: boolean): Promise<string | null> {
  const outfile = outfileOf(target);
  rmSync(outfile, { force: true });
  const build = Bun.spawn([
    process.execPath, "build", "--compile", "--minify", "--bytecode", "--format=esm", "--splitting",
    "--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig",
    ...(native ? [] : [`--target=${target.bunTarget}`]),
    "--define", `WEFT_COMMIT=${JSON.stringify(commit())}`,
    ...ENTRY_POINTS, "--outfile", outfile,
  ], { cwd: ROOT, stdout: "pipe", stderr: "pipe" });
  const [status, output] = [await build.exited, (await new Response(build.stdout).text()) + (await new Response(build.stderr).text())];
  return status === 0 ? null : output;
}

const { values, positionals: only } = parseArgs({ args: process.argv.slice(2), options: { outdir: { type: "string" } }, allowPositionals: true });
const outdir = values.outdir === undefined ? join(ROOT, "dist") : resolve(values.outdir);
mkdirSync(outdir, { recursive: true });
let failed = false;
for (const [index, target] of targets().entries()) {
  if (only.length > 0 && !only.includes(target.name)) continue;
  const native = index === 0;
  const error = await compile(target, native);
  if (error === null) {
    console.log(`${target.outfile}  ${(statSync(outfileOf(target)).size / 1e6).toFixed(0)} MB  ${target.name}`);
  } else if (native) {
    console.error(`${target.outfile} was not built:\n${error}`);
    failed = true;
  } else {
    console.error(`${target.outfile} was not built: the runtime for ${target.name} could not be had (${error.trim().split("\n").at(-1)})`);
  }
}
process.exit(failed ? 1 : 0);
