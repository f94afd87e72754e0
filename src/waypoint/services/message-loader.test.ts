import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";

/** What a module loads when it is loaded, itself among it: imports of values, not those of types or at a later time. */
function loadedBy(path: string, found = new Set<string>()): Set<string> {
  if (found.has(path)) return found;
  found.add(path);
  for (const [, names = "", from, alone] of readFileSync(path, "utf8").matchAll(/^(?:import|export)\s+(?!type\b)([^;"]*?)\s*from\s*"([^"]+)"|^import\s+"([^"]+)"/gms)) {
    const typesOnly = /^\{[^}]*\}$/.test(names.trim()) && names.trim().slice(1, -1).split(",").every((name) => name.trim() === "" || name.trim().startsWith("type "));
    const specifier = from ?? alone!;
    if (!typesOnly && specifier.startsWith(".")) loadedBy(resolve(dirname(path), specifier), found);
  }
  return found;
}

const WAYPOINT = resolve(import.meta.dir, "..");
const protobufs = (path: string): string[] => [...loadedBy(resolve(WAYPOINT, path))].map((file) => relative(resolve(WAYPOINT, ".."), file)).filter((file) => file.startsWith("wire/protobuf/"));

test("a data thread loads the messages of no protocol before somebody needs them: they cost each thread megabytes", () => {
  expect(protobufs("data-thread.ts")).toEqual([]);
});

test("sees what is loaded", () => {
  expect(protobufs("services/decision-messages.ts")).toContain("wire/protobuf/envoy/service/auth/v3/external_auth_pb.ts");
});
