/* served.h: who served a picture, in the infotext's words. */
#ifndef ATTUNE_SERVED_H
#define ATTUNE_SERVED_H

#include "attune/host.h"

/* Backends that served, most arithmetic first, each once: "sdp (attune-cpu 1.0.0, portable)", and the
 * arithmetic ids of these and of the sampler, into texts of `size` bytes. */
void served_text(const attune_attention_record *records, uint32_t count, const attune_sampler_info *sampler,
                 char *names, char *arithmetic, size_t size);

#endif
