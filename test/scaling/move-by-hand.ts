import type { MoveOptions } from './measured-move.ts';
import { type Printed, recipeOf } from './recipe.ts';
import { runSteps } from './run-steps.ts';
import type { TwoServers } from './two-servers.ts';

/** A move in three parts. */
export interface MoveParts {
  attemptAndTakeBack(): Promise<void>;
  /** Until the target takes writes. The rows of the source are still there. */
  toTheEndOfWrites(): Promise<void>;
  end(): Promise<void>;
}

/** Moves the mount `media` by the recipe of docs/scaling.md. */
export function moveByHand(servers: TwoServers, options: MoveOptions): MoveParts {
  const [role, ...steps] = recipeOf('Steps by hand');
  const end = steps.findIndex(({ text }) => text.includes('drop subscription'));
  const cutOver = steps.findIndex(({ text }) => text.includes('release_mount'));
  const printed: Printed = new Map();
  let hasRole = false;
  const withRole = () => {
    if (hasRole || role === undefined) return [];
    hasRole = true;
    return [role];
  };
  return {
    attemptAndTakeBack: () =>
      runSteps(servers, [...withRole(), ...steps.slice(0, cutOver), ...recipeOf('Take it back')], options),
    toTheEndOfWrites: () =>
      runSteps(servers, [...withRole(), ...steps.slice(0, end)], { ...options, printed }),
    end: () => runSteps(servers, steps.slice(end), { ...options, printed }),
  };
}
