/* The hardened profile for sketches of Waspmote nodes (docs/protocol.md 12.4, 12.5; docs/firmware.md, "Classic nodes").
 *
 *   static ff_node node;
 *   ff_storage storage = { 0, my_eeprom_read, my_eeprom_write };
 *   ff_boot(&node, &storage, FF_CLOUD, serial);                   once, at boot
 *   frame.createFrame(BINARY); frame.addSensor(...);              as ever
 *   if (ff_seal(&node, seed, frame.buffer, frame.length, out, sizeof out, &length) == FF_OK)
 *       xbee.send(gateway, out, length);                          and nothing else: never frame.buffer
 *
 * Every function returns FF_OK or what was wrong. None allocates, none keeps a pointer but that of ff_storage's context,
 * none may be called from an interrupt while another runs. Places of arguments do not overlap.
 */
#ifndef FIVEFOLD_CLASSIC_H
#define FIVEFOLD_CLASSIC_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    FF_OK = 0,
    FF_STORAGE = 1,  /* the EEPROM failed: stop, send nothing */
    FF_NO_KEY = 2,   /* no key, or its numbers were lost: ff_offer first */
    FF_SPENT = 3,    /* no number left under this key: ff_offer first */
    FF_FRAME = 4,    /* no binary frame of v15 hardware, or too long: 234 bytes at most */
    FF_ROOM = 5,     /* the place for the result is too small */
    FF_REFUSED = 6,  /* not the answer that is waited for, or somebody changed it: wait on */
    FF_UNASKED = 7,  /* no answer is waited for */
    FF_RSA = 8,      /* ff_renewal's function failed */
    FF_ARGUMENT = 9, /* a null pointer, or a number that means nothing here */
};

/* Who opens what this node seals. A sketch that speaks with both has two ff_node, each with its own EEPROM area. */
enum { FF_GATEWAY = 2, FF_CLOUD = 3 };

#define FF_OVERHEAD 21      /* bytes that ff_seal adds to a frame */
#define FF_STORAGE_BYTES 460 /* bytes of EEPROM that ff_storage's offsets stay below */
#define FF_KR1_BYTES 312
#define FF_NODE_BYTES 96

/* EEPROM. Both return 0 when all was done; write returns when the bytes are there to stay. */
typedef struct {
    void *context;
    uint8_t (*read)(void *context, uint16_t offset, uint8_t *bytes, uint16_t length);
    uint8_t (*write)(void *context, uint16_t offset, const uint8_t *bytes, uint16_t length);
} ff_storage;

/* All zeros before ff_boot. Holds the key: never send or print it. */
typedef struct {
    uint8_t room[FF_NODE_BYTES];
} ff_node;

typedef struct {
    uint8_t wish;  /* 1: renew the key */
    uint32_t time; /* seconds since 1970, authentic; 0: not known */
} ff_answer;

typedef struct {
    uint8_t server[4];            /* srv_kid */
    const uint8_t *enrolment_key; /* 32 bytes */
    const uint8_t *random;        /* 80 bytes from a real source, never used for anything else; unused when KR1 is sent again */
    void *context;
    /* number = number ^ 65537 mod the server's modulus; 256 bytes, big-endian, in place; 0 when it was done */
    uint8_t (*rsa_public)(void *context, uint8_t *number);
} ff_renewal;

/* Reads key and numbers from the EEPROM. FF_OK also without a key: ff_seal then says FF_NO_KEY. */
uint8_t ff_boot(ff_node *node, const ff_storage *storage, uint8_t peer, const uint8_t *serial /* 8 */);

/* A key that was brought by hand, with its epoch. Not needed where ff_offer brings the first one. */
uint8_t ff_install(ff_node *node, uint32_t epoch, const uint8_t *key /* 32 */);

/* Epoch of the key; 0 without one. */
uint32_t ff_epoch(ff_node *node);

/* Seals a binary frame. Once in 64 calls it writes 8 bytes of EEPROM first. On any fault *sealed is 0. */
uint8_t ff_seal(ff_node *node, const uint8_t *seed /* 4 */, const uint8_t *frame, uint16_t length, uint8_t *out,
                uint16_t room, uint16_t *sealed);

/* Opens the answer to the frame that was sealed last; it is taken once. Hand it every frame of type 6C or 6D. */
uint8_t ff_open_answer(ff_node *node, const uint8_t *frame, uint16_t length, ff_answer *answer);

/* KR1 for the next key: made once (an RSA operation: seconds), kept, and the same bytes again until it was answered. */
uint8_t ff_offer(ff_node *node, const ff_renewal *renewal, uint8_t *kr1 /* FF_KR1_BYTES */);

/* Takes the server's answer, a frame of type 6A. FF_OK: the new key is kept and in use. */
uint8_t ff_take_answer(ff_node *node, const uint8_t *frame, uint16_t length);

/* Part index of a key message, as a frame of at most room bytes. *written is 0 after the last part. id: another one than
 * that of the message sent before. */
uint8_t ff_part(const uint8_t *serial /* 8 */, uint8_t id, uint8_t index, const uint8_t *message, uint16_t length,
                uint8_t *out, uint16_t room, uint16_t *written);

#ifdef __cplusplus
}
#endif

#endif
