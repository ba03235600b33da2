// What is seen, as text that can be compared line by line.

import * as k8s from '@kubernetes/client-node';

/** Begins a section. */
export function section(name) {
  console.log(`== ${name}`);
}

/** JSON with sorted members. */
function text(value) {
  const sorted = (_, member) =>
    member && typeof member === 'object' && !Array.isArray(member) && !(member instanceof Date)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member;
  return JSON.stringify(value === undefined ? null : value, sorted, 1);
}

/** Writes what was seen. */
export function say(what, seen) {
  console.log(`${what}: ${text(seen)}`);
}

/** Writes how the server refuses. */
export async function refused(what, call) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof k8s.ApiException)) throw error;
    const body = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
    say(what, [error.code, body]);
    return;
  }
  throw new Error(`the server does not refuse: ${what}`);
}

/** Waits until something is there. */
export async function until(what, ask, limit = 60_000) {
  const deadline = Date.now() + limit;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`not within ${limit} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
