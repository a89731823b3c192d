package dicomweb

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// Readings tells how far a study has come. These two resources are ours, not the standard's.
type Readings interface {
	// Status returns the state of a study and its latest record; pipeline.ErrNotFound for a study that is not here.
	Status(ctx context.Context, studyUID string) (pipeline.Status, error)
	// Preview returns the picture that the model saw, a PNG; pipeline.ErrNotFound when there is none yet.
	Preview(ctx context.Context, studyUID string) ([]byte, error)
}

func (s *server) reading(c *gin.Context) {
	study, _, _, err := pathUIDs(c)
	if err != nil {
		s.refuse(c, err)
		return
	}
	status, err := s.Readings.Status(c.Request.Context(), study)
	if err != nil {
		s.refuse(c, err)
		return
	}
	c.JSON(http.StatusOK, status)
}

func (s *server) readingImage(c *gin.Context) {
	study, _, _, err := pathUIDs(c)
	if err != nil {
		s.refuse(c, err)
		return
	}
	png, err := s.Readings.Preview(c.Request.Context(), study)
	if err != nil {
		s.refuse(c, err)
		return
	}
	c.Data(http.StatusOK, "image/png", png)
}
