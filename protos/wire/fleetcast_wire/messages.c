/* Receives many messages in one call, each into a room of slots, and says which slots they filled. A message is one
 * datagram, or a train of them that the kernel has put together (UDP_GRO). */

#define _GNU_SOURCE
#include "trains.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

enum { LEVEL_UDP = 17, KIND_GRO = 104, PORTION_SLOTS = 384 };

struct other {
    int64_t room, slots, length, size;
};

/* Returns the size of a message's datagrams: what the kernel says, or else all of it. */
static int64_t datagram_size(struct msghdr *header, int64_t length)
{
    int size;
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control != NULL; control = CMSG_NXTHDR(header, control))
        if (control->cmsg_level == LEVEL_UDP && control->cmsg_type == KIND_GRO) {
            memcpy(&size, CMSG_DATA(control), sizeof size);
            return size;
        }
    return length;
}

/* Receives messages without waiting; appends what they hold to `slots` and `others`. Returns how many, 0 or less if none. */
static int receive_portion(int descriptor, struct mmsghdr *messages, unsigned most, size_t control_bytes, int64_t room_slots,
                           int64_t stride, int64_t *slots, struct other *others, int64_t counts[2])
{
    for (unsigned i = 0; i < most; i++)
        messages[i].msg_hdr.msg_controllen = control_bytes;
    const int received = recvmmsg(descriptor, messages, most, MSG_DONTWAIT, NULL);
    for (int i = 0; i < received; i++) {
        struct msghdr *header = &messages[i].msg_hdr;
        const int64_t length = messages[i].msg_len, size = datagram_size(header, length);
        const int64_t full = size == stride && !(header->msg_flags & MSG_TRUNC) ? length / stride : 0;
        for (int64_t j = 0; j < full; j++)
            slots[counts[0]++] = i * room_slots + j;
        if (full * stride != length)
            others[counts[1]++] = (struct other){i, full, length, size};
    }
    return received;
}

/* Receives at most `most` messages, without waiting, into the rooms that their headers name, of `room_slots` slots of
 * `stride` bytes each; `control_bytes` are there for each one's control messages. Writes the slots that hold a datagram of
 * the size of a slot to `slots`, and to `others` each message with more than those: its room, how many of those it begins
 * with, its length and the size of its datagrams. Writes to `counts` how many there are of both, and whether more messages
 * may be there. Returns how many messages came.
 *
 * With a run, that is opened as it comes, in portions that stay in the processor's cache, until something else comes. */
int64_t fleetcast_receive(int descriptor, struct mmsghdr *messages, unsigned most, size_t control_bytes, int64_t room_slots,
                          int64_t stride, struct run *run, int64_t *slots, struct other *others, int64_t counts[3])
{
    const unsigned portion = run == NULL ? most : 1 + PORTION_SLOTS / (unsigned)room_slots;
    unsigned total = 0;
    counts[0] = counts[1] = counts[2] = 0;
    do {
        const unsigned wanted = portion < most - total ? portion : most - total;
        const int received =
            receive_portion(descriptor, messages, wanted, control_bytes, room_slots, stride, slots, others, counts);
        counts[2] = received == (int)wanted;
        total += received > 0 ? (unsigned)received : 0;
        const int64_t opened = run == NULL ? 0 : fleetcast_open_run(run, slots, (size_t)counts[0]);
        if (opened > 0) {
            counts[0] -= opened;
            memmove(slots, slots + opened, (size_t)counts[0] * sizeof *slots);
        }
    } while (run != NULL && counts[0] == 0 && counts[1] == 0 && counts[2] && total < most);
    return total;
}
