/* Convolution 3x3 (padding 1, with bias), max-pooling 2x2 and ReLU as one operation, forward and backward, in float32.
 *
 * Why it is faster than three operations one after the other:
 *
 * 1. Nothing between the convolution and the pooled output is written to memory.
 * 2. Forward is Winograd's F(2x2, 3x3) [Lavin and Gray 2015, https://arxiv.org/abs/1509.09308, section 4.1]: a tile of 2x2
 *    outputs comes from a patch of 4x4 inputs with 16 multiplications in place of 36. A tile is just one pooling window,
 *    so maximum, bias and ReLU follow in registers. Where there are few input channels (images), it is computed directly.
 * 3. Only one of four outputs of the convolution reaches the loss, and none where ReLU returned 0 or dropout zeroed the
 *    gradient. Forward notes the winner of each pooling window, and backward works through the list of the gradients
 *    that are left, about a tenth of those that a convolution's own backward pass goes through.
 *
 * Memory. Images and activations are (B, H, W, C), torch's channels_last; weights are (O, 3, 3, C). `winner` has the shape
 * of the output (B, H/2, W/2, O): 0 to 3 is the place of the maximum, row by row; 4 says that ReLU returned 0.
 * H and W are even, O is a multiple of LANES, C is any number.
 *
 * Reproducibility. An output depends on its patch alone, not on the batch or the number of threads. Weight gradients are
 * summed image by image in each thread, then thread by thread, in a fixed order: the same number of threads gives the same
 * bits. If several outputs of a window are equal, torch takes the first; here rounding may decide (a subgradient as valid).
 * NaN wins a maximum, as in torch. A patch that holds an infinity may give NaN where torch gives an infinity.
 *
 * The vectors are GNU C's (gcc, clang), so the same file serves SSE, AVX2, AVX-512 and NEON. No headers of Python or torch.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
static int omp_get_num_threads(void) { return 1; }
#endif

#ifdef __AVX512F__
#define LANES 16   /* floats in a vector */
#define PANEL 4    /* vectors of output channels in a product's register tile: 6 x 4 sums in 32 registers */
#define CHANNELS 2 /* vectors of input channels in the weight gradient: 9 x 2 sums */
#else
#ifdef __AVX2__
#define LANES 8
#else
#define LANES 4 /* SSE and NEON */
#endif
#define PANEL 2    /* 6 x 2 sums in 16 registers */
#define CHANNELS 1 /* 9 sums */
#endif
#define ROWS 6           /* tiles in a product's register tile */
#define BLOCK (4 * ROWS) /* tiles transformed together: their 16 matrices stay in the L2 cache */
#define NO_WINNER 4

typedef ptrdiff_t size;
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t mask __attribute__((vector_size(4 * LANES))); /* comparisons give -1 for true, 0 for false */
typedef uint8_t bytes __attribute__((vector_size(LANES)));
typedef struct { int32_t window; float gradient; } entry; /* where the 3x3 window begins in the padded image */

#define INLINE static inline __attribute__((always_inline)) /* so that counts given as constants unroll the loops */
#define UNROLL _Pragma("GCC unroll 9")

INLINE vec load(const float *from) { vec v; memcpy(&v, from, sizeof v); return v; }
INLINE void store(float *to, vec v) { memcpy(to, &v, sizeof v); }
INLINE mask choose_int(mask which, mask a, mask b) { return (which & a) | (~which & b); }
INLINE vec choose(mask which, vec a, vec b) { return (vec)choose_int(which, (mask)a, (mask)b); }
static size padded(size floats) { return (floats + 15) / 16 * 16; } /* whole cache lines */
static float *allocate(size floats) { return aligned_alloc(64, (size_t)padded(floats) * sizeof(float)); }

/* Pool the four outputs of a window, add the bias, apply ReLU; note the winner unless `winner` is NULL. */
INLINE void pool(const vec out[4], vec bias, float *pooled, uint8_t *winner)
{
    vec best = out[0];
    mask which = {0};
    UNROLL for (int i = 1; i < 4; i++) {
        mask wins = (out[i] > best) | (out[i] != out[i]);
        best = choose(wins, out[i], best);
        which = choose_int(wins, (mask){0} + i, which);
    }
    best += bias;
    mask off = best <= 0; /* false for NaN, which stays */
    store(pooled, (vec)(~off & (mask)best));
    if (winner) {
        bytes b = __builtin_convertvector(choose_int(off, (mask){0} + NO_WINNER, which), bytes);
        memcpy(winner, &b, sizeof b);
    }
}

/* ---- Forward with Winograd ----------------------------------------------------------------------------------------- */

/* One dimension of the three transforms: of weights (3 to 4 values), of a patch (4 to 4), of a tile (4 to 2). */
#define WEIGHT_TRANSFORM(a, b, c, to, step) \
    do { to[0] = a; to[step] = 0.5f * (a + b + c); to[2 * step] = 0.5f * (a - b + c); to[3 * step] = c; } while (0)
#define PATCH_TRANSFORM(a, b, c, d, to, step) \
    do { to[0] = a - c; to[step] = b + c; to[2 * step] = c - b; to[3 * step] = b - d; } while (0)
#define TILE_TRANSFORM(a, b, c, d, to, step) do { to[0] = a + b + c; to[step] = b - c - d; } while (0)

/* Weights (O, 3, 3, C) to 16 matrices (C, O), for the input channel c. */
static void transform_weights(const float *weight, float *to, size c, size C, size O)
{
    for (size o = 0; o < O; o++) {
        const float *w = weight + o * 9 * C + c;
        float half[12], whole[16]; /* (4, 3) and (4, 4) */
        for (int x = 0; x < 3; x++)
            WEIGHT_TRANSFORM(w[x * C], w[(3 + x) * C], w[(6 + x) * C], (half + x), 3);
        for (int y = 0; y < 4; y++)
            WEIGHT_TRANSFORM(half[3 * y], half[3 * y + 1], half[3 * y + 2], (whole + 4 * y), 1);
        for (int k = 0; k < 16; k++)
            to[(k * C + c) * O + o] = whole[k];
    }
}

/* The patch of a tile, whose 16 pixels of C channels `pixel` points to, to row `t` of 16 matrices (BLOCK, C). */
static void transform_patch(const float *const pixel[16], float *to, size t, size C)
{
    for (size c = 0; c < C; c += LANES) {
        vec half[16], whole[16];
        UNROLL for (int x = 0; x < 4; x++)
            PATCH_TRANSFORM(load(pixel[x] + c), load(pixel[4 + x] + c), load(pixel[8 + x] + c), load(pixel[12 + x] + c),
                            (half + x), 4);
        UNROLL for (int y = 0; y < 4; y++)
            PATCH_TRANSFORM(half[4 * y], half[4 * y + 1], half[4 * y + 2], half[4 * y + 3], (whole + 4 * y), 1);
        for (int k = 0; k < 16; k++)
            store(to + (k * BLOCK + t) * C + c, whole[k]);
    }
}

/* ROWS rows of a matrix (., C) times `panel` vectors of columns of a matrix (C, O), in registers. */
INLINE void product(const float *rows, const float *columns, float *to, size C, size O, const int panel)
{
    vec sum[ROWS][PANEL] = {{{0}}};
    for (size c = 0; c < C; c++) {
        vec column[PANEL];
        UNROLL for (int p = 0; p < panel; p++)
            column[p] = load(columns + c * O + p * LANES);
        UNROLL for (int r = 0; r < ROWS; r++)
            UNROLL for (int p = 0; p < panel; p++)
                sum[r][p] += rows[r * C + c] * column[p];
    }
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int p = 0; p < panel; p++)
            store(to + r * O + p * LANES, sum[r][p]);
}

static void products(const float *rows, const float *columns, float *to, size tiles, size C, size O)
{
    for (int k = 0; k < 16; k++) {
        const float *a = rows + k * BLOCK * C, *b = columns + k * C * O;
        float *m = to + k * BLOCK * O;
        size o = 0;
        for (; o + PANEL * LANES <= O; o += PANEL * LANES)
            for (size t = 0; t < tiles; t += ROWS)
                product(a + t * C, b + o, m + t * O + o, C, O, PANEL);
        for (; o < O; o += LANES)
            for (size t = 0; t < tiles; t += ROWS)
                product(a + t * C, b + o, m + t * O + o, C, O, 1);
    }
}

/* Row `t` of 16 matrices (BLOCK, O) to the pooled output of its tile. */
static void pool_tile(const float *from, const float *bias, float *pooled, uint8_t *winner, size t, size O)
{
    for (size o = 0; o < O; o += LANES) {
        vec half[8], out[4]; /* (2, 4) and (2, 2) */
        UNROLL for (int x = 0; x < 4; x++) {
            const float *m = from + (x * BLOCK + t) * O + o;
            size row = 4 * BLOCK * O;
            vec a = load(m), b = load(m + row), c = load(m + 2 * row), d = load(m + 3 * row);
            TILE_TRANSFORM(a, b, c, d, (half + x), 4);
        }
        UNROLL for (int y = 0; y < 2; y++)
            TILE_TRANSFORM(half[4 * y], half[4 * y + 1], half[4 * y + 2], half[4 * y + 3], (out + 2 * y), 1);
        pool(out, load(bias + o), pooled + o, winner ? winner + o : NULL);
    }
}

/* Point to the 16 pixels of the patch of tile number `tile` of the batch; outside the image to `zeros`. */
static void find_patch(const float *x, const float *zeros, size tile, size H, size W, size C, const float *pixel[16])
{
    size h = H / 2, w = W / 2, image = tile / (h * w), top = tile / w % h * 2 - 1, left = tile % w * 2 - 1;
    for (size y = 0; y < 4; y++) {
        size row_start = ((image * H + top + y) * W + left) * C;
        int inside = top + y >= 0 && top + y < H;
        for (size i = 0; i < 4; i++)
            pixel[4 * y + i] = inside && left + i >= 0 && left + i < W ? x + row_start + i * C : zeros;
    }
}

/* ---- Forward without Winograd, for any number of input channels ---------------------------------------------------- */

/* `count` vectors of output channels of a tile from its patch (16, C) and weights (3, 3, C, O). */
INLINE void direct(const float *patch, const float *weight, const float *bias, float *pooled, uint8_t *winner, size C,
                   size O, const int count)
{
    vec sum[2][4] = {{{0}}};
    for (size c = 0; c < C; c++)
        UNROLL for (int tap = 0; tap < 9; tap++) {
            const float *corner = patch + (tap / 3 * 4 + tap % 3) * C + c; /* what the tap meets at the first output */
            UNROLL for (int v = 0; v < count; v++) {
                vec w = load(weight + (tap * C + c) * O + v * LANES);
                UNROLL for (int i = 0; i < 4; i++)
                    sum[v][i] += corner[(i / 2 * 4 + i % 2) * C] * w;
            }
        }
    UNROLL for (int v = 0; v < count; v++)
        pool(sum[v], load(bias + v * LANES), pooled + v * LANES, winner ? winner + v * LANES : NULL);
}

/* ---- Backward ------------------------------------------------------------------------------------------------------ */

/* List the gradients of an image that are left, channel by channel; `count` takes their number for each channel. */
static void list_gradients(const float *gradient, const uint8_t *winner, entry *list, int32_t *count, size H, size W,
                           size row, size C, size O)
{
    size places = H / 2 * (W / 2), place = 0;
    memset(count, 0, (size_t)O * sizeof *count);
    for (size top = 0; top < H; top += 2)
        for (size left = 0; left < W; left += 2, place++) {
            int32_t window[NO_WINNER + 1] = {0};
            for (size i = 0; i < NO_WINNER; i++)
                window[i] = (int32_t)((top + i / 2) * row + (left + i % 2) * C);
            for (size o = 0; o < O; o++) { /* without a branch: the place behind the last entry may hold anything */
                float g = gradient[place * O + o];
                uint8_t which = winner[place * O + o];
                list[o * places + count[o]] = (entry){window[which], g};
                count[o] += (which != NO_WINNER) & (g != 0);
            }
        }
}

/* Add gradient x window to the weight gradient (3, 3, C) of a channel, for `vectors` vectors of input channels. */
INLINE void add_to_weight(const entry *list, size count, const float *image, float *to, size row, size C,
                          const int vectors)
{
    vec sum[9][CHANNELS];
    UNROLL for (int tap = 0; tap < 9; tap++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[tap][v] = load(to + tap * C + v * LANES);
    for (size i = 0; i < count; i++) {
        const float *top = image + list[i].window, *rows[3] = {top, top + row, top + 2 * row};
        UNROLL for (int tap = 0; tap < 9; tap++)
            UNROLL for (int v = 0; v < vectors; v++)
                sum[tap][v] += list[i].gradient * load(rows[tap / 3] + tap % 3 * C + v * LANES);
    }
    UNROLL for (int tap = 0; tap < 9; tap++)
        UNROLL for (int v = 0; v < vectors; v++)
            store(to + tap * C + v * LANES, sum[tap][v]);
}

/* Add gradient x weights (3, 3, C) of a channel to the windows of the padded input gradient, likewise. */
INLINE void add_to_input(const entry *list, size count, const float *weight, float *to, size row, size C,
                         const int vectors)
{
    vec w[9][CHANNELS];
    UNROLL for (int tap = 0; tap < 9; tap++)
        UNROLL for (int v = 0; v < vectors; v++)
            w[tap][v] = load(weight + tap * C + v * LANES);
    for (size i = 0; i < count; i++) {
        float *top = to + list[i].window, *rows[3] = {top, top + row, top + 2 * row}, g = list[i].gradient;
        UNROLL for (int tap = 0; tap < 9; tap++)
            UNROLL for (int v = 0; v < vectors; v++) {
                float *inputs = rows[tap / 3] + tap % 3 * C + v * LANES;
                store(inputs, load(inputs) + g * w[tap][v]);
            }
    }
}

/* The same for any number of input channels. */
static void add_to_any_input(const entry *list, size count, const float *weight, float *to, size row, size C)
{
    for (size i = 0; i < count; i++)
        for (size c = 0; c < 9 * C; c++)
            to[list[i].window + c / (3 * C) * row + c % (3 * C)] += list[i].gradient * weight[c];
}

/* The weight gradient (3, 3, C, O) for any number of input channels: all gradients, zeros where another output won. */
static void add_all_to_weight(const float *gradient, const uint8_t *winner, const float *image, float *to, size H, size W,
                              size row, size C, size O)
{
    for (size o = 0; o < O; o += LANES)
        for (size c = 0; c < C; c++) {
            vec sum[9];
            UNROLL for (int tap = 0; tap < 9; tap++)
                sum[tap] = load(to + (tap * C + c) * O + o);
            size place = o;
            for (size top = 0; top < H; top += 2)
                for (size left = 0; left < W; left += 2, place += O) {
                    vec g = load(gradient + place);
                    bytes b;
                    memcpy(&b, winner + place, sizeof b);
                    mask which = __builtin_convertvector(b, mask);
                    const float *corner = image + top * row + left * C + c;
                    UNROLL for (int i = 0; i < 4; i++) {
                        vec won = (vec)((which == i) & (mask)g);
                        UNROLL for (int tap = 0; tap < 9; tap++)
                            sum[tap] += corner[(i / 2 + tap / 3) * row + (i % 2 + tap % 3) * C] * won;
                    }
                }
            UNROLL for (int tap = 0; tap < 9; tap++)
                store(to + (tap * C + c) * O + o, sum[tap]);
        }
}

static void add_to_bias(const float *gradient, const uint8_t *winner, float *to, size places, size O)
{
    for (size place = 0; place < places; place++)
        for (size o = 0; o < O; o++)
            to[o] += winner[place * O + o] != NO_WINNER ? gradient[place * O + o] : 0;
}

/* ---- What Python calls --------------------------------------------------------------------------------------------- */

int lanes(void) { return LANES; }

/* Return 0, or -1 if there is no memory. `winner` may be NULL. */
int forward(const float *x, const float *weight, const float *bias, float *pooled, uint8_t *winner, size B, size H, size W,
            size C, size O, int threads)
{
    const int winograd = C % LANES == 0;
    const size tiles = B * (H / 2) * (W / 2);
    const size of_weights = padded((winograd ? 16 : 9) * C * O), of_zeros = padded(C);
    const size of_rows = padded(16 * C * (winograd ? BLOCK : 1)), of_thread = of_rows + (winograd ? 16 * BLOCK * O : 0);
    float *scratch = allocate(of_weights + of_zeros + threads * of_thread);
    if (!scratch)
        return -1;
    float *weights = scratch, *zeros = scratch + of_weights;
    memset(zeros, 0, (size_t)C * sizeof *zeros);
#pragma omp parallel num_threads(threads)
    {
        float *rows = zeros + of_zeros + omp_get_thread_num() * of_thread, *sums = rows + of_rows;
        const float *pixel[16];
#pragma omp for schedule(static)
        for (size c = 0; c < C; c++)
            if (winograd)
                transform_weights(weight, weights, c, C, O);
            else
                for (size o = 0; o < O; o++)
                    for (int tap = 0; tap < 9; tap++)
                        weights[(tap * C + c) * O + o] = weight[(o * 9 + tap) * C + c];
#pragma omp for schedule(static)
        for (size first = 0; first < tiles; first += BLOCK) {
            size count = tiles - first < BLOCK ? tiles - first : BLOCK, whole = (count + ROWS - 1) / ROWS * ROWS;
            for (size t = 0; winograd && t < whole; t++) { /* the rows that fill up the last register tile repeat a tile */
                find_patch(x, zeros, first + (t < count ? t : count - 1), H, W, C, pixel);
                transform_patch(pixel, rows, t, C);
            }
            if (winograd)
                products(rows, weights, sums, whole, C, O);
            for (size t = 0; t < count; t++) {
                float *to = pooled + (first + t) * O;
                uint8_t *who = winner ? winner + (first + t) * O : NULL;
                if (winograd) {
                    pool_tile(sums, bias, to, who, t, O);
                    continue;
                }
                find_patch(x, zeros, first + t, H, W, C, pixel);
                for (size c = 0; c < C; c++)
                    for (int i = 0; i < 16; i++)
                        rows[i * C + c] = pixel[i][c];
                size o = 0;
                for (; o + 2 * LANES <= O; o += 2 * LANES)
                    direct(rows, weights + o, bias + o, to + o, who ? who + o : NULL, C, O, 2);
                if (o < O)
                    direct(rows, weights + o, bias + o, to + o, who ? who + o : NULL, C, O, 1);
            }
        }
    }
    free(scratch);
    return 0;
}

/* Return 0, or -1 if there is no memory. `to_input` may be NULL if nobody needs the input gradient. */
int backward(const float *gradient, const uint8_t *winner, const float *x, const float *weight, float *to_input,
             float *to_weight, float *to_bias, size B, size H, size W, size C, size O, int threads)
{
    const int by_list = C % LANES == 0;
    const size places = H / 2 * (W / 2), row = (W + 2) * C, of_image = padded((H + 2) * row);
    const size of_weight = padded(9 * C * O), of_list = padded(2 * O * places + O), of_sums = of_weight + padded(O);
    const size of_thread = 2 * of_image + of_list + of_sums;
    float *scratch = allocate(threads * of_thread);
    if (!scratch)
        return -1;
#pragma omp parallel num_threads(threads)
    {
        const size team = omp_get_num_threads(), me = omp_get_thread_num();
        float *image = scratch + me * of_thread, *input_sums = image + of_image;
        float *weight_sums = input_sums + of_image, *bias_sums = weight_sums + of_weight;
        entry *list = (entry *)(weight_sums + of_sums);
        int32_t *count = (int32_t *)(list + O * places);
        memset(image, 0, (size_t)of_image * sizeof *image); /* its rim stays zero: the padding */
        memset(weight_sums, 0, (size_t)of_sums * sizeof *weight_sums);
        for (size b = B * me / team; b < B * (me + 1) / team; b++) {
            const float *g = gradient + b * places * O;
            const uint8_t *who = winner + b * places * O;
            for (size y = 0; y < H; y++)
                memcpy(image + (y + 1) * row + C, x + (b * H + y) * W * C, (size_t)(W * C) * sizeof *x);
            add_to_bias(g, who, bias_sums, places, O);
            if (by_list || to_input)
                list_gradients(g, who, list, count, H, W, row, C, O);
            for (size o = 0; by_list && o < O; o++) {
                float *to = weight_sums + o * 9 * C;
                size c = 0;
                for (; c + CHANNELS * LANES <= C; c += CHANNELS * LANES)
                    add_to_weight(list + o * places, count[o], image + c, to + c, row, C, CHANNELS);
                for (; c < C; c += LANES)
                    add_to_weight(list + o * places, count[o], image + c, to + c, row, C, 1);
            }
            if (!by_list)
                add_all_to_weight(g, who, image, weight_sums, H, W, row, C, O);
            if (to_input) {
                memset(input_sums, 0, (size_t)of_image * sizeof *input_sums);
                for (size o = 0; o < O; o++) {
                    const entry *of_channel = list + o * places;
                    const float *w = weight + o * 9 * C;
                    size c = 0;
                    if (!by_list)
                        add_to_any_input(of_channel, count[o], w, input_sums, row, C);
                    for (; by_list && c + CHANNELS * LANES <= C; c += CHANNELS * LANES)
                        add_to_input(of_channel, count[o], w + c, input_sums + c, row, C, CHANNELS);
                    for (; by_list && c < C; c += LANES)
                        add_to_input(of_channel, count[o], w + c, input_sums + c, row, C, 1);
                }
                for (size y = 0; y < H; y++)
                    memcpy(to_input + (b * H + y) * W * C, input_sums + (y + 1) * row + C, (size_t)(W * C) * sizeof *x);
            }
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (size o = 0; o < O; o++) {
            for (size i = 0; i <= 9 * C; i++) { /* the last one is the bias */
                size from = i == 9 * C ? of_weight + o : by_list ? o * 9 * C + i : i * O + o;
                float sum = 0;
                for (size thread = 0; thread < team; thread++)
                    sum += scratch[thread * of_thread + 2 * of_image + from];
                *(i == 9 * C ? to_bias + o : to_weight + o * 9 * C + i) = sum;
            }
        }
    }
    free(scratch);
    return 0;
}
