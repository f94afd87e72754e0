// One thread of another process, stopped while the others run: as if it hung.

import { dlopen } from "bun:ffi";
import { readdirSync, readFileSync } from "node:fs";

const PTRACE_DETACH = 17;
const PTRACE_SEIZE = 0x4206;
const PTRACE_INTERRUPT = 0x4207;

const { symbols: C } = dlopen("libc.so.6", { ptrace: { args: ["i64", "i32", "i64", "i64"], returns: "i64" } });

/** Stops the first thread of that name (the runtime calls those of a Worker `Worker`) until it is disposed. */
export function freezeThread(pid: number, name: string): Disposable {
  const thread = readdirSync(`/proc/${pid}/task`).find((tid) => readFileSync(`/proc/${pid}/task/${tid}/comm`, "utf8").trim() === name);
  if (thread === undefined) throw new Error(`process ${pid} has no thread ${name}`);
  const tid = Number(thread);
  for (const request of [PTRACE_SEIZE, PTRACE_INTERRUPT]) if (C.ptrace(request, tid, 0, 0) !== 0n) throw new Error(`ptrace of thread ${tid} is not allowed`);
  return { [Symbol.dispose]: () => void C.ptrace(PTRACE_DETACH, tid, 0, 0) };
}
