package tracing

import "context"

// Flush exports what has ended.
func Flush(ctx context.Context, t *Tracer) { _ = t.provider.ForceFlush(ctx) }
