import { expect, test } from "bun:test";
import { DescriptorLimit } from "./descriptor-limit.ts";

test("descriptors: what is kept free of connections is a tenth, within bounds", () => {
  const reserve = (limit: number) => limit - new DescriptorLimit(limit).acceptBelow;
  expect([256, 1024, 4096, 65_536].map(reserve)).toEqual([64, 102, 409, 1024]);
  expect(new DescriptorLimit(1024).dialBelow).toBe(1024 - 51);
});

test("descriptors: the soft limit is read as the kernel writes it", () => {
  expect(DescriptorLimit.ofProcess("Limit  Soft Limit  Hard Limit  Units\nMax open files            512                  4096                 files     \n").limit).toBe(512);
  expect(DescriptorLimit.ofProcess("Max open files            unlimited            unlimited            files\n").limit).toBe(Number.MAX_SAFE_INTEGER);
  expect(DescriptorLimit.ofProcess().limit).toBeGreaterThan(16);
});
