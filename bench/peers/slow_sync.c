/* A disk whose syncs take as long as one likes, to be preloaded: fsync and fdatasync sleep instead of asking the disk.
 * SYNC_US is how long, in microseconds; 0 makes them free. What a sync would have written stays in memory, so this
 * measures waiting alone, the same on every machine.
 */
#include <stdlib.h>
#include <time.h>

static int sleep_instead(void) {
    const char *text = getenv("SYNC_US");
    long us = text != NULL ? atol(text) : 0;
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    while (us > 0 && nanosleep(&left, &left) != 0) continue;
    return 0;
}

int fsync(int fd) {
    (void)fd;
    return sleep_instead();
}

int fdatasync(int fd) {
    (void)fd;
    return sleep_instead();
}
