import { expect, test } from "bun:test";
import { noWorkloadHere } from "./other-nodes.ts";

const on = (...nodes: readonly string[]) => nodes.map((node) => ({ node }));

test.each([
  ["nothing configured", 0, [], null],
  ["none with a node", 0, on("", ""), null],
  ["one lives here", 1, on("vm", "b"), null],
  ["all elsewhere", 0, on("b", "", "a", "b"), 'no workload lives on this node (vm); the configuration has them on: a, b. Is --node right?'],
  ["on many others", 0, on("n6", "n5", "n4", "n3", "n2", "n1"), 'no workload lives on this node (vm); the configuration has them on: n1, n2, n3, n4, n5 and 1 more. Is --node right?'],
])("%s", (_, localCount, workloads, expected) => expect(noWorkloadHere("vm", localCount, workloads)).toBe(expected));
