/* Receives many messages in one call, each into a room of slots, and says which slots they filled. A message is one
 * datagram, or a train of them that the kernel has put together (UDP_GRO). */

#define _GNU_SOURCE
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

enum { LEVEL_UDP = 17, KIND_GRO = 104 };

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

/* Receives at most `most` messages, without waiting, into the rooms that their headers name, of `room_slots` slots of
 * `stride` bytes each; `control_bytes` are there for each one's control messages. Writes the slots that hold a datagram of
 * the size of a slot to `slots`, and to `others` each message with more than those: its room, how many of those it begins
 * with, its length and the size of its datagrams. Writes how many there are of both to `counts`. Returns how many messages
 * came, 0 or less if none. */
int fleetcast_receive(int descriptor, struct mmsghdr *messages, unsigned most, size_t control_bytes, int64_t room_slots,
                      int64_t stride, int64_t *slots, struct other *others, int64_t counts[2])
{
    counts[0] = counts[1] = 0;
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
