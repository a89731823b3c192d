package dicomweb

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// Readings tells how far a study has come. It is no DICOMweb resource: it serves people and programs that wait for a report.
type Readings interface {
	// Status returns where the study stands; pipeline.ErrNotFound if nothing of it is here.
	Status(ctx context.Context, studyUID string) (pipeline.Status, error)
	// Preview returns the picture that the model saw, a PNG file; pipeline.ErrNotFound if the study was not read.
	Preview(ctx context.Context, studyUID string) ([]byte, error)
}

// reading answers GET {study}/reading with the study's state and its latest record as JSON (docs/report-json.md).
func (s *server) reading(c *gin.Context) error {
	study, _, _, err := pathUIDs(c)
	if err != nil {
		return err
	}
	st, err := s.Readings.Status(c.Request.Context(), study)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, st)
	return nil
}

// readingImage answers GET {study}/reading/image with the picture that the model saw.
func (s *server) readingImage(c *gin.Context) error {
	study, _, _, err := pathUIDs(c)
	if err != nil {
		return err
	}
	png, err := s.Readings.Preview(c.Request.Context(), study)
	if err != nil {
		return err
	}
	c.Data(http.StatusOK, "image/png", png)
	return nil
}
