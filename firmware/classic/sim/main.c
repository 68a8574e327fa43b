/* A sketch for a simulated ATmega1281: seals, hears answers, boots again, renews its key; says each to the serial port with
 * its cycles and its stack. What it is given and what it hears comes from scene.h, what it says is checked by the example
 * classic_node of fivefold-waspmote. Cycles are Timer1's.
 *
 * PART 0: nothing of the library, for the flash of the rest. 1: frames and answers. 2: renewal too. 3: the private operation
 * of RSA alone, to say what a signature would cost.
 */
#include <avr/eeprom.h>
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include <stdio.h>
#include <string.h>

#include "bearssl.h"
#include "fivefold_classic.h"

#if PART == 3
#include "private.h"
#else
#include "scene.h"
#endif

_Static_assert(sizeof(ff_node) == FF_NODE_BYTES, "the header sets aside what the library takes");

static int put(char c, FILE *to) {
    (void)to;
    while (!(UCSR0A & (1 << UDRE0))) {}
    UDR0 = c;
    return 0;
}
static FILE serial_port = FDEV_SETUP_STREAM(put, NULL, _FDEV_SETUP_WRITE);

/* --- cycles and stack --- */

static volatile uint32_t overflows;
ISR(TIMER1_OVF_vect) { overflows += 65536UL; }

static uint32_t cycles(void) {
    cli();
    uint16_t low = TCNT1;
    uint32_t high = overflows;
    if ((TIFR1 & (1 << TOV1)) && low < 32768) high += 65536UL;
    sei();
    return high + low;
}

extern uint8_t __heap_start;
#define PAINT 0xA5

__attribute__((noinline)) static void paint(void) {
    for (uint8_t *p = &__heap_start; p < (uint8_t *)SP - 8; p++) *p = PAINT;
}

/* Bytes below the stack pointer of the caller that were written since. */
__attribute__((noinline)) static uint16_t stack(void) {
    uint8_t *p = &__heap_start;
    while (*p == PAINT) p++;
    return (uint8_t *)SP - p;
}

static uint32_t before __attribute__((unused));
#define MEASURE(call) (paint(), before = cycles(), (call))
#define SPENT (cycles() - before)

/* simavr breaks long lines anywhere; these it does not. */
__attribute__((unused)) static void hex(const uint8_t *bytes, uint16_t length) {
    for (uint16_t n = 0; n < length; n++) {
        if (n && n % 64 == 0) printf("\nmore ");
        printf("%02x", bytes[n]);
    }
    printf("\n");
}

/* --- what a sketch brings --- */

static uint8_t number[256];

#if PART == 1 || PART == 2
static uint8_t eeprom_from(void *context, uint16_t offset, uint8_t *bytes, uint16_t length) {
    eeprom_read_block(bytes, (const uint8_t *)context + offset, length);
    return 0;
}

static uint8_t eeprom_to(void *context, uint16_t offset, const uint8_t *bytes, uint16_t length) {
    eeprom_update_block(bytes, (uint8_t *)context + offset, length);
    eeprom_busy_wait();
    return 0;
}
#endif

#if PART == 2
static uint8_t rsa_public(void *modulus, uint8_t *value) {
    static const uint8_t exponent[] = {1, 0, 1};
    br_rsa_public_key key = {modulus, 256, (uint8_t *)exponent, sizeof exponent};
    return br_rsa_i15_public(value, 256, &key) ? 0 : 1;
}
#endif

#if PART == 1 || PART == 2
static ff_node node;
static uint8_t serial[8], key[32], seed[4], clear[255], sealed[255];

static void say(const char *what, uint8_t right) { printf("%s %s\n", what, right ? "right" : "WRONG"); }

static void seal(uint8_t bytes) {
    uint16_t length = 0;
    clear[4] = bytes - 5;
    uint8_t fault = MEASURE(ff_seal(&node, seed, clear, bytes, sealed, sizeof sealed, &length));
    uint32_t spent = SPENT;
    uint16_t deep = stack();
    if (fault) { printf("fault %u\n", fault); return; }
    printf("frame %u %lu %u %u ", bytes, spent, deep, length);
    hex(sealed, length);
}

static void frames(const ff_storage *storage) {
    uint16_t length = 0;
    ff_answer answer;
    memcpy_P(serial, SERIAL, sizeof serial);
    memcpy_P(key, KEY, sizeof key);
    memcpy_P(seed, SEED, sizeof seed);
    memcpy_P(clear, CLEAR, sizeof CLEAR);
    ff_boot(&node, storage, FF_CLOUD, serial);
    clear[4] = 32 - 5;
    say("no-key", ff_seal(&node, seed, clear, 32, sealed, sizeof sealed, &length) == FF_NO_KEY && length == 0);
    ff_install(&node, EPOCH, key);
    for (uint8_t n = 0; n < sizeof SIZES; n++) seal(pgm_read_byte(SIZES + n));
    memcpy_P(number, ANSWER, sizeof ANSWER);
    number[30] ^= 1;
    say("forged-answer", ff_open_answer(&node, number, sizeof ANSWER, &answer) == FF_REFUSED);
    number[30] ^= 1;
    uint8_t fault = MEASURE(ff_open_answer(&node, number, sizeof ANSWER, &answer));
    uint32_t spent = SPENT;
    printf("cost ff_open_answer %lu %u\n", spent, stack());
    say("answer", fault == FF_OK && answer.wish == 1 && answer.time == TIME);
    say("answer-again", ff_open_answer(&node, number, sizeof ANSWER, &answer) == FF_UNASKED);
    fault = MEASURE(ff_boot(&node, storage, FF_CLOUD, serial));
    spent = SPENT;
    printf("cost ff_boot %lu %u\n", spent, stack());
    seal(pgm_read_byte(SIZES));
}
#endif

#if PART == 2
static uint8_t modulus[256], enrolment_key[32], randomness[80], kr1[FF_KR1_BYTES], again[FF_KR1_BYTES];

static void renewal(const ff_storage *storage) {
    uint16_t length = 0;
    ff_renewal how = {{0}, enrolment_key, randomness, modulus, rsa_public};
    memcpy_P(how.server, SERVER, sizeof how.server);
    memcpy_P(modulus, MODULUS, sizeof modulus);
    memcpy_P(enrolment_key, ENROLMENT_KEY, sizeof enrolment_key);
    memcpy_P(randomness, RANDOM, sizeof randomness);
    uint8_t fault = MEASURE(ff_offer(&node, &how, kr1));
    uint32_t spent = SPENT;
    printf("cost ff_offer %lu %u\n", spent, stack());
    if (fault) printf("fault %u\n", fault);
    for (uint8_t index = 0;; index++) {
        ff_part(serial, ID, index, kr1, sizeof kr1, sealed, ROOM, &length);
        if (!length) break;
        printf("part ");
        hex(sealed, length);
    }
    /* Power is lost: it sends the same bytes again, whatever randomness there is now. */
    ff_boot(&node, storage, FF_CLOUD, serial);
    memset(randomness, 0, sizeof randomness);
    say("kr1-again", ff_offer(&node, &how, again) == FF_OK && !memcmp(kr1, again, sizeof kr1));
    memcpy_P(number, KR2, sizeof KR2);
    number[50] ^= 1;
    say("forged-kr2", ff_take_answer(&node, number, sizeof KR2) == FF_REFUSED && ff_epoch(&node) == EPOCH);
    number[50] ^= 1;
    fault = MEASURE(ff_take_answer(&node, number, sizeof KR2));
    spent = SPENT;
    printf("cost ff_take_answer %lu %u\n", spent, stack());
    say("kr2", fault == FF_OK && ff_epoch(&node) == EPOCH + 1);
    say("kr2-again", ff_take_answer(&node, number, sizeof KR2) == FF_UNASKED);
    seal(pgm_read_byte(SIZES));
    memcpy_P(number, CLEAR, 200);
    fault = MEASURE(rsa_public(modulus, number));
    spent = SPENT;
    printf("cost rsa_public %lu %u\n", spent, stack());
}
#endif

#if PART == 3
static void private_operation(void) {
    br_rsa_private_key with = {BITS, (uint8_t *)P, sizeof P, (uint8_t *)Q, sizeof Q, (uint8_t *)DP, sizeof DP,
                               (uint8_t *)DQ, sizeof DQ, (uint8_t *)QINV, sizeof QINV};
    memcpy(number, VALUE, sizeof VALUE);
    uint32_t done = MEASURE(br_rsa_i15_private(number, &with));
    uint32_t spent = SPENT;
    printf("private %u %lu %u %s\n", BITS, spent, stack(), done && !memcmp(number, RESULT, sizeof RESULT) ? "right" : "WRONG");
}
#endif

int main(void) {
    UCSR0B = 1 << TXEN0;
    stdout = &serial_port;
    TCCR1B = 1;
    TIMSK1 = 1 << TOIE1;
    sei();
#if PART == 1 || PART == 2
    ff_storage storage = {(void *)1024, eeprom_from, eeprom_to};
    frames(&storage);
#endif
#if PART == 2
    renewal(&storage);
#endif
#if PART == 3
    private_operation();
#endif
#if PART == 0
    paint();
    hex(number, stack() > 2000 ? 1 : 2);
#endif
    printf("end %lu\n", cycles());
    cli();
    sleep_mode();
    for (;;) {}
}
