package dicomweb

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"
)

// Deleter removes what is kept.
type Deleter interface {
	// Delete removes a study, a series ("" for all) or one instance ("" for all), durably, and returns how many instances that were. The
	// error wraps pipeline.ErrNotFound when there is nothing.
	Delete(ctx context.Context, study, series, sop string) (int, error)
}

// remove answers DELETE of a study, a series or an instance with 204.
func (s *server) remove(c *gin.Context) error {
	study, series, sop, err := pathUIDs(c)
	if err != nil {
		return err
	}
	// Who asked may go away in the middle; what has begun is finished.
	n, err := s.Deleter.Delete(context.WithoutCancel(c.Request.Context()), study, series, sop)
	if err != nil {
		return err
	}
	s.Log.Warn().Str("study", study).Str("series", series).Str("instance", sop).Int("instances", n).
		Str("by", c.GetString(principalKey)).Str("client", c.ClientIP()).Msg("deleted")
	c.Status(http.StatusNoContent)
	return nil
}
