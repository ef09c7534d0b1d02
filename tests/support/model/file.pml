/*
 * One file's life, and two daemons, as a model that Spin checks exhaustively.
 *
 * Two files lie in one shared inbox, of the same content or of two; two daemons work on one PostgreSQL database. A daemon
 * may be killed at any point, and lose its connection at any point, also during COMMIT: then nobody tells it whether the
 * COMMIT counted. The power may fail, which ends both daemons and undoes moves that were not synced. An operator undoes a
 * run, and retries a file, at any moment.
 *
 * What is checked:
 *   once         the effect of a content stands at most once           (asserted at COMMIT)
 *   alone        one daemon at a time is in a file's transaction       (asserted at LOCK)
 *   accounted    processed/ holds only files whose run committed       (asserted at ARCHIVE)
 *   forward      a watermark never goes back, but by undo              (asserted at COMMIT)
 *   ends         each file ends in processed/ or failed/, its verdict in the log, its claim forgotten (the formula)
 *
 * The labels in capitals are the steps of model.Step, in its order. Left out are what a step computes, and time: where the
 * daemon waits before it takes over a claim, the model does not, for waiting may save work but not make it right. One log
 * serves both daemons, and a session that ends gives its locks back at once.
 *
 * Mistakes that can be planted (-D), each of which is found: ARCHIVE_FIRST, NO_CLAIM, NO_LEDGER, NO_LOCK, NO_QUESTION,
 * BLIND_ADVANCE, FORGET_FIRST, FORGET_UNTOLD.
 */

/* How often each fault may strike. All of them together make some hundred million states; CI takes them by twos and threes. */
#ifndef KILLS
#define KILLS 2
#endif
#ifndef CUTS
#define CUTS 1
#endif
#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef UNDOS
#define UNDOS 1
#endif
#ifndef RETRIES
#define RETRIES 1
#endif
#define POISON_AFTER 2 /* 3 in the product; fewer kills show the same */
#define FILES 2
#define NOBODY 2       /* the daemons are 0 and 1 */

mtype = { INBOX, CLAIMED, PROCESSED, FAILED };                      /* where a file is */
mtype = { NONE, RUNNING, INTERRUPTED, SUCCESS, DUPLICATE, FAILURE } /* the run of its present claim */

typedef File {
    mtype place = INBOX;
    mtype synced = INBOX; /* where a power cut would put it */
    mtype run_of = NONE;
    byte claim;           /* its present claim; the claim's id names the folder that it lies in */
    byte interrupted;     /* how many runs of this claim a crash ended */
    byte holder = NOBODY; /* whose session holds the claim's lock */
    byte inside = NOBODY; /* who is in the file's transaction */
    byte content;
    bool logged;            /* its verdict is in the log */
    bool folder           /* its claim's folder is there */
}

File file[FILES];
byte effect[FILES];       /* how many times each content stands in the table */
bool loaded[FILES];       /* the ledger: a run loaded this content, and stands */
byte watermark;
bool broken[2];           /* the session of this daemon is gone: its locks, and the transaction, with it */
bool killed[2];
byte kills = KILLS, cuts = CUTS, losses = LOSSES, undos = UNDOS, retries = RETRIES;

inline end_session(who) {
    for (k : 0 .. FILES - 1) {
        if :: file[k].holder == who -> file[k].holder = NOBODY :: else fi;
        if :: file[k].inside == who -> file[k].inside = NOBODY :: else fi
    }
}

#ifdef NO_LOCK
#define MAY_TAKE(f) true
#else
#define MAY_TAKE(f) (file[f].holder == NOBODY)
#endif
#ifdef BLIND_ADVANCE
#define ADVANCED reached
#else
#define ADVANCED (reached > watermark -> reached : watermark)
#endif
#define OURS (file[at].holder == me && !broken[me])
#define ENDED(f) (file[f].place == PROCESSED || file[f].place == FAILED)

proctype Daemon(byte me) {
    byte at, claim, k, reached;
    bool duplicate;

    do :: {
    skip;
end_looking:
    if
    :: file[0].place == INBOX -> at = 0
    :: file[1].place == INBOX -> at = 1
    /* what a dead daemon left, or one without its session: a claim, or the empty folder of one that was moved */
    :: file[0].folder && MAY_TAKE(0) -> at = 0; goto take
    :: file[1].folder && MAY_TAKE(1) -> at = 1; goto take
    fi;
CLAIM:
    atomic {
        if
        :: file[at].place == INBOX -> file[at].folder = true;
#ifdef NO_CLAIM
            goto BEGIN
#else
            file[at].place = CLAIMED; file[at].synced = CLAIMED; file[at].claim++
#endif
        :: else -> goto idle /* another daemon was first */
        fi
    };
take:
    atomic {
        broken[me] = false;
        if :: MAY_TAKE(at) && file[at].folder -> file[at].holder = me; claim = file[at].claim :: else -> goto idle fi
    };
ask:
    /* A COMMIT whose answer was lost, or whose daemon died, may have counted: the ledger is asked first. */
    atomic {
        if :: !OURS -> goto idle :: else fi;
        if :: file[at].run_of == RUNNING -> file[at].run_of = INTERRUPTED; file[at].interrupted++ :: else fi;
        if
#ifndef NO_QUESTION
        :: file[at].run_of == SUCCESS || file[at].run_of == DUPLICATE || file[at].run_of == FAILURE -> goto ARCHIVE
#endif
        :: file[at].run_of == INTERRUPTED && file[at].interrupted >= POISON_AFTER -> file[at].run_of = FAILURE; goto ARCHIVE
        :: else
        fi
    };
BEGIN:
#ifndef NO_CLAIM
    atomic { if :: OURS -> file[at].run_of = RUNNING :: else -> goto idle fi };
#endif
#ifdef ARCHIVE_FIRST
    atomic { if :: file[at].place == CLAIMED -> file[at].place = PROCESSED; file[at].synced = PROCESSED :: else fi };
#endif
STAGE:
    skip;
SEAL: /* here a fault of the file is found at the latest */
    if
    :: skip
    :: atomic { OURS && file[at].run_of == RUNNING -> file[at].run_of = FAILURE }; goto ARCHIVE
    fi;
LOCK:
    atomic {
#ifndef NO_CLAIM
        if :: !OURS -> goto idle :: else fi;
#endif
        assert(file[at].inside == NOBODY);
        file[at].inside = me
    };
    duplicate = loaded[file[at].content];
UPSERT:
    skip;
ADVANCE:
    reached = file[at].content + 1;
RECORD:
    skip;
COMMIT:
    atomic {
        if :: file[at].inside != me -> goto idle :: else fi; /* rolled back with its session */
        file[at].inside = NOBODY;
        if
        :: duplicate -> file[at].run_of = DUPLICATE
        :: !duplicate && loaded[file[at].content] -> goto BEGIN /* the unique index; then it is a duplicate */
        :: !duplicate && !loaded[file[at].content] ->
            file[at].run_of = SUCCESS;
#ifndef NO_LEDGER
            loaded[file[at].content] = true;
#endif
            effect[file[at].content]++;
            assert(effect[file[at].content] == 1);
            assert(ADVANCED >= watermark);
            watermark = ADVANCED
        fi;
        if
        :: losses > 0 -> losses--; broken[me] = true; end_session(me); goto idle /* it counted, but who knows? */
        :: skip
        fi
    };
ARCHIVE:
#ifdef FORGET_FIRST
    file[at].folder = false;
#endif
    atomic {
        if
        :: file[at].place == CLAIMED && file[at].claim == claim ->
            file[at].place = (file[at].run_of == FAILURE -> FAILED : PROCESSED)
        :: else /* another daemon has moved it, or this one before it died */
        fi;
        assert(file[at].place != PROCESSED || file[at].run_of == SUCCESS || file[at].run_of == DUPLICATE)
    };
#ifndef FORGET_UNTOLD
    atomic {
        if
        :: OURS && !file[at].logged -> file[at].logged = true
        :: OURS && file[at].logged -> skip
        :: !OURS -> goto idle
        fi
    };
#endif
    atomic { if :: OURS -> file[at].folder = false; file[at].holder = NOBODY :: else -> goto idle fi };
    /* the folders' syncs; until then a power cut undoes the move */
    file[at].synced = file[at].place;
idle:
    at = 0; claim = 0; reached = 0; duplicate = false
    } unless { atomic { killed[me] -> killed[me] = false; broken[me] = false } }
    od
}

proctype World() {
    byte k;
end_world:
    do
    :: atomic { kills > 0 -> kills--; killed[0] = true; end_session(0) }
    :: atomic { kills > 0 -> kills--; killed[1] = true; end_session(1) }
    :: atomic { losses > 0 -> losses--; broken[0] = true; end_session(0) }
    :: atomic {
           cuts > 0 -> cuts--;
           killed[0] = true; end_session(0); killed[1] = true; end_session(1);
           for (k : 0 .. FILES - 1) {
               if
               :: file[k].place != file[k].synced && file[k].place != CLAIMED ->
                   file[k].place = CLAIMED; file[k].folder = true; file[k].logged = false
               :: else
               fi
           }
       }
    :: atomic {
           undos > 0 && loaded[0] && file[0].inside == NOBODY && file[1].inside == NOBODY ->
               undos--; effect[0]--; loaded[0] = false; watermark = (effect[1] > 0 -> 2 : 0)
       }
    :: atomic {
           retries > 0 && ENDED(0) && !file[0].folder && file[0].synced == file[0].place ->
               retries--; file[0].place = CLAIMED; file[0].synced = CLAIMED; file[0].claim++; file[0].folder = true;
               file[0].run_of = NONE; file[0].interrupted = 0; file[0].logged = false
       }
    od
}

init {
    atomic {
        if :: file[1].content = 0 :: file[1].content = 1 fi;
        run Daemon(0); run Daemon(1); run World()
    }
}

#define all_ended (ENDED(0) && ENDED(1) && file[0].logged && file[1].logged && !file[0].folder && !file[1].folder)
ltl ends { <>[] all_ended }
