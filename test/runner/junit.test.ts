import { expect, test } from "bun:test";
import { parseJunit, SKIPPED_WITHOUT_REASON } from "./junit.ts";

const report = (cases: string, tests: number): string =>
  `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="bun test" tests="${tests}" failures="0" skipped="0" time="0.1">
  <testsuite name="a.test.ts" file="a.test.ts" tests="${tests}">
${cases}
  </testsuite>
</testsuites>`;

test("junit: a passed test carries its describe path and time", () => {
  const xml = report(
    `<testsuite name="outer"><testsuite name="inner"><testcase name="a &lt; b" classname="inner &gt; outer" time="0.25" /></testsuite></testsuite>`,
    1,
  );
  expect(parseJunit(xml)).toEqual([{ name: "outer > inner > a < b", seconds: 0.25, outcome: { kind: "passed" } }]);
});

test("junit: a failure keeps its text, or its message when there is no text", () => {
  const xml = report(
    `<testcase name="one"><failure type="Error" message="short">Error: long &quot;text&quot;&#10;at x</failure></testcase>
     <testcase name="two"><failure type="TimeoutError" message="test timed out" /></testcase>`,
    2,
  );
  expect(parseJunit(xml).map((r) => r.outcome)).toEqual([
    { kind: "failed", message: 'Error: long "text"\nat x' },
    { kind: "failed", message: "test timed out" },
  ]);
});

test("junit: a skip with a reason is a skip, one without is a failure", () => {
  const xml = report(
    `<testcase name="one [skipped: needs nft]"><skipped /></testcase>
     <testsuite name="group [skipped: needs wrk]"><testcase name="two"><skipped /></testcase></testsuite>
     <testcase name="three"><skipped message="TODO" /></testcase>`,
    3,
  );
  expect(parseJunit(xml).map((r) => r.outcome)).toEqual([
    { kind: "skipped", reason: "needs nft" },
    { kind: "skipped", reason: "needs wrk" },
    { kind: "failed", message: SKIPPED_WITHOUT_REASON },
  ]);
});

test("junit: a truncated report throws", () => {
  expect(() => parseJunit(report(`<testcase name="one" />`, 2))).toThrow("declares 2 tests, 1 were read");
  expect(() => parseJunit("")).toThrow("declares no tests");
});
