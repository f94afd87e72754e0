// The L4 benchmark: every peer has a testbed of its own, all stay up for a round, and each probe visits the peers in turns,
// starting with another one each round. Each round starts fresh proxies, whose first connection is a row by itself.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../lib/process.ts";
import type { Peer, Placement, RunningPeer } from "../peers/peer.ts";
import { firstByteMs, RunFailed } from "./load.ts";
import { FIRST_CONNECTION, PROBES, type Probe } from "./probes.ts";
import { Record } from "./record.ts";
import { HTTP_PORT, makeTestbed, type Node, type Testbed } from "./testbed.ts";

export interface L4Options {
  readonly peers: readonly Peer[];
  readonly rounds: number;
  readonly seconds: number;
  /** Rows wanted; empty for all. */
  readonly rows: readonly string[];
  readonly progress: (line: string) => void;
}

/** A peer in a placement, on its own testbed. */
interface Seat {
  readonly peer: Peer;
  readonly placements: readonly Placement[];
  readonly bed: Testbed;
}

interface Running extends Seat {
  readonly running: RunningPeer;
}

export async function benchL4(options: L4Options): Promise<Record> {
  const record = new Record();
  const probes = probesFor(options.rows);
  const folder = mkdtempSync(join(tmpdir(), "weft-bench-"));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(folder, { recursive: true, force: true }));
  const seats: Seat[] = [];
  for (const { peer, placements } of seatsFor(options.peers, probes)) {
    const bed = stack.use(await makeTestbed(`${peer.name}-${placements[0]}`, seats.length + 1, folder));
    seats.push({ peer, placements, bed });
  }
  for (let round = 0; round < options.rounds; round += 1) {
    options.progress(`round ${round + 1} of ${options.rounds}`);
    await oneRound({ seats, probes, round, record, options });
  }
  return record;
}

function probesFor(rows: readonly string[]): readonly Probe[] {
  return rows.length === 0 ? PROBES : PROBES.filter((probe) => probe.yields.some((row) => rows.includes(row)));
}

/** A peer whose same-node path is its own sits down twice. */
function seatsFor(peers: readonly Peer[], probes: readonly Probe[]): { peer: Peer; placements: Placement[] }[] {
  const sameNodeAsked = probes.some((probe) => probe.placement === "same-node");
  return peers.flatMap((peer) => {
    if (!peer.hasSameNodePath) return [{ peer, placements: ["across", "same-node"] as Placement[] }];
    const seats = [{ peer, placements: ["across"] as Placement[] }];
    return sameNodeAsked ? [...seats, { peer, placements: ["same-node"] as Placement[] }] : seats;
  });
}

interface RoundPlan {
  readonly seats: readonly Seat[];
  readonly probes: readonly Probe[];
  readonly round: number;
  readonly record: Record;
  readonly options: L4Options;
}

async function oneRound({ seats, probes, round, record, options }: RoundPlan): Promise<void> {
  const started: Running[] = [];
  try {
    for (const seat of rotated(seats, round)) {
      const running = await startSeat(seat, round, record);
      if (running === null) continue;
      started.push(running);
      if (seat.placements.includes("across")) await firstConnection(running, round, record);
    }
    for (const probe of probes) {
      for (const seat of rotated(started, round)) {
        if (!seat.placements.includes(probe.placement)) continue;
        await oneRun({ probe, seat, round, record, options });
      }
    }
  } finally {
    for (const { running } of started) await running.stop();
  }
}

async function startSeat(seat: Seat, round: number, record: Record): Promise<Running | null> {
  try {
    return { ...seat, running: await seat.peer.start(seat.bed, seat.placements[0] ?? "across") };
  } catch (error) {
    record.fail({ peer: seat.peer.name, round, probe: "start", why: message(error) });
    return null;
  }
}

async function firstConnection({ peer, bed, running }: Running, round: number, record: Record): Promise<void> {
  try {
    const ms = await firstByteMs(bed.client.enter, `http://${bed.server.ip}:${HTTP_PORT}/`);
    await assertTunnelled(peer, bed);
    record.add(peer.name, round, { [FIRST_CONNECTION]: ms });
  } catch (error) {
    record.fail({ peer: peer.name, round, probe: FIRST_CONNECTION, why: `${message(error)}\n${running.logTails()}` });
  }
}

/** A figure for a path that went around the proxies would be worse than none. */
async function assertTunnelled(peer: Peer, bed: Testbed): Promise<void> {
  if (peer.tunnelPorts.length === 0) return;
  const filter = peer.tunnelPorts.map((port) => `dport = :${port}`).join(" or ");
  const { stdout } = await run([...bed.client.enter, "ss", "-Htna", `( ${filter} )`], { limitSeconds: 5 });
  if (!stdout.includes(bed.server.ip)) throw new Error(`traffic did not pass through a tunnel: no connection to port ${peer.tunnelPorts.join(", ")}`);
}

interface Run {
  readonly probe: Probe;
  readonly seat: Running;
  readonly round: number;
  readonly record: Record;
  readonly options: L4Options;
}

async function oneRun({ probe, seat, round, record, options }: Run): Promise<void> {
  const { peer, bed, running } = seat;
  const idleMissing = probe.holdsIdle ? peer.idleMissing() : null;
  if (idleMissing !== null) return options.progress(`  ${probe.name} ${peer.name}: left out: ${idleMissing}`);
  try {
    running.assertAlive();
    const figures = await probe.measure({ bed, peer: running, seconds: options.seconds, note: (text) => options.progress(`  ${probe.name} ${peer.name}: ${text}`) });
    record.add(peer.name, round, figures);
    options.progress(`  ${probe.name} ${peer.name}: ${Object.entries(figures).map(([row, value]) => `${row} ${value.toPrecision(4)}`).join(", ")}`);
  } catch (error) {
    const why = error instanceof RunFailed ? `${error.message}\n${await evidence(seat)}` : message(error);
    record.fail({ peer: peer.name, round, probe: probe.name, why });
    options.progress(`  ${probe.name} ${peer.name}: FAILED: ${why}`);
  }
}

/** Where bytes got stuck: sockets with something in a queue on either side, and the proxies' last words. */
async function evidence({ bed, running }: Running): Promise<string> {
  const queued = async (node: Node): Promise<string> => {
    const { stdout } = await run([...node.enter, "ss", "-tinpH"], { limitSeconds: 5 });
    const sockets = stdout.split("\n").filter((text) => /^[A-Z]/.test(text));
    const stuck = sockets.filter((text) => !/^\S+\s+0\s+0\s/.test(text)).slice(0, 10);
    return `${node.namespace}: ${sockets.length} sockets, with queued bytes:\n${stuck.join("\n") || "none"}`;
  };
  return `${await queued(bed.client)}\n${await queued(bed.server)}\n${running.logTails()}`;
}

const message = (error: unknown): string => (error instanceof Error ? error.message : String(error));

function rotated<T>(items: readonly T[], by: number): T[] {
  const at = items.length === 0 ? 0 : by % items.length;
  return [...items.slice(at), ...items.slice(0, at)];
}
