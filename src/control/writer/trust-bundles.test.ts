import { expect, test } from "bun:test";
import { FakeTime } from "../../../test/kit/fake-time.ts";
import { quietLog } from "../../../test/kit/quiet-log.ts";
import { ok } from "../../core/result.ts";
import type { Api } from "../../runtime/kubernetes/api.ts";
import { BUNDLE_NAME, TrustBundles } from "./trust-bundles.ts";
import { WriteQueue } from "./write-queue.ts";

const object = (text: string) => ({ metadata: { name: BUNDLE_NAME, namespace: "shop" }, data: { "root-cert.pem": text } });

test("what somebody else wrote is heard of before our own write is answered: it is written again", async () => {
  const time = new FakeTime();
  const answers: (() => void)[] = [];
  const api: Api = {
    request: () => new Promise((resolve) => answers.push(() => resolve(ok(null)))),
    watch: () => Promise.reject(new Error("nothing is watched here")),
  };
  const queue = new WriteQueue({ clock: time, timers: time, log: quietLog() });
  const bundles = new TrustBundles({ api, queue, bundle: () => "the roots" });
  bundles.setWriting(true);
  bundles.setSynced();
  bundles.setNamespace("shop", true);
  await time.pass(0);
  expect(answers.length).toBe(1);
  bundles.setFound("shop", object("the roots"));
  bundles.setFound("shop", object("forged"));
  answers[0]!();
  await time.pass(0);
  expect(answers.length).toBe(2);
  // Its own write, before the watch has brought it, is no reason to write again.
  answers[1]!();
  await time.pass(0);
  bundles.check();
  await time.pass(0);
  expect([answers.length, queue.length]).toEqual([2, 0]);
});
