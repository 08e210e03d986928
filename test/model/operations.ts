import {
  callMergeMetadata,
  callMoveNode,
  callRevertNode,
  changeState,
  changeWhatStays,
  chooseVersion,
  moveSeveral,
  plainMove,
  plainRename,
  recordSightings,
  renameWithChild,
  writeContent,
  writeContents,
  writeIfUnchanged,
} from './changing.ts';
import {
  callCopyTree,
  callCreateNode,
  callCreateNodes,
  callEnsureDirectory,
  callUpsertFile,
  insertInBulk,
  insertRows,
} from './creating.ts';
import {
  callDeleteBatch,
  callDeleteNode,
  callPurge,
  callRestoreNode,
  moveTombstone,
  plainDelete,
  plainDeleteTree,
  plainPurge,
  plainRestore,
} from './deleting.ts';
import { type Choice, liveNodes, type Operation } from './model-operation.ts';
import { callAllPages, callListDirectory, callNodeByPath } from './reading.ts';
import { callApplyScan, callBeginScan, callCancelScan } from './scanning.ts';
import { callSyncNodes } from './syncing.ts';
import { callFold, callPruneHistory, callRecount, changeJournalEntry } from './upkeep.ts';

/** The approximate number of live nodes: enough for a deep tree, few enough to compare all after each step. */
const FULL = 45;

export function anyOperation(choice: Choice): Operation {
  const { scan } = choice.model;
  // Others write nothing during some scans, so that the result is known in advance.
  if (scan?.isUndisturbed === true)
    return choice.random.chance(0.97) ? callApplyScan(choice) : callCancelScan(choice);
  const live = liveNodes(choice).length;
  const creating = live < FULL / 3 ? 3 : live < FULL ? 1 : 0.2;
  const deleting = live < FULL / 3 ? 0.3 : live < FULL ? 1 : 2;
  return choice.random.weighted<(choice: Choice) => Operation>([
    [6 * creating, callCreateNode],
    [4 * creating, callCreateNodes],
    [4 * creating, callCopyTree],
    [4 * creating, callEnsureDirectory],
    [7 * creating, callUpsertFile],
    [6 * creating, insertRows],
    [3 * creating, insertInBulk],
    [6, writeContent],
    [3, writeContents],
    [3, writeIfUnchanged],
    [3, callMergeMetadata],
    [3, recordSightings],
    [4, changeState],
    [10, callMoveNode],
    [4, plainRename],
    [10, plainMove],
    [3, moveSeveral],
    [2, renameWithChild],
    [6, callRevertNode],
    [2, chooseVersion],
    [1, changeWhatStays],
    [7 * deleting, callDeleteNode],
    [5 * deleting, plainDelete],
    [2 * deleting, plainDeleteTree],
    [3 * deleting, callDeleteBatch],
    [10, callRestoreNode],
    [6, plainRestore],
    [2, moveTombstone],
    [2, callPurge],
    [2, plainPurge],
    [2, callListDirectory],
    [3, callAllPages],
    [3, callNodeByPath],
    [7, callFold],
    [1, callRecount],
    ...(scan === null
      ? ([[8, callBeginScan]] as const)
      : ([
          [20, callApplyScan],
          [1, callCancelScan],
        ] as const)),
    [4 * creating, callSyncNodes],
    [1, callPruneHistory],
    [3, changeJournalEntry],
  ])(choice);
}
