/* domain.h: what attune_error.domain says for errors of the sampler, whatever vendor's library it is built
 * into. */
#ifndef ATTUNE_SAMPLER_DOMAIN_H
#define ATTUNE_SAMPLER_DOMAIN_H

#define SAMPLER_DOMAIN "attune-sampler"

#endif
