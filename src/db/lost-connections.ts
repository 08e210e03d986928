import type { PoolClient } from 'pg';
import { codeOf } from '../cause-codes.ts';
import { ConnectionLostError } from '../errors.ts';
import { describeLoss, isConnectionLoss } from '../session/connection-error.ts';
import type { Database } from '../settings/database.ts';
import { paragraph } from '../text.ts';

/**
 * Names the errors of a connection that was lost. Between two statements, the server's reason arrives as an
 * event, and the next statement fails without it.
 * @returns Turns an error of a statement for which pg has no code into `CONNECTION_LOST`, with that reason as
 * its cause.
 */
export function lossNamer(client: PoolClient, { where }: Database): (error: unknown) => unknown {
  let reason: Error | undefined;
  client.on('error', (error) => {
    reason ??= error;
  });
  return (error) => {
    if (codeOf(error) !== undefined || !isConnectionLoss(error)) return error;
    const cause = reason ?? error;
    const remedy = 'Repeat the transaction. If it was at its commit, look first whether it was committed.';
    return new ConnectionLostError(paragraph(describeLoss(where, cause), remedy), [], { cause });
  };
}
