package dicomweb

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// Readings tells how far a study has come. It is no DICOMweb resource: it serves people and programs that wait for a report.
type Readings interface {
	// Status returns where the study stands; pipeline.ErrNotFound if nothing of it is here.
	Status(ctx context.Context, studyUID string) (pipeline.Status, error)
	// Preview returns the picture that the model saw, a PNG file; pipeline.ErrNotFound if the study was not read.
	Preview(ctx context.Context, studyUID string) ([]byte, error)
	// Lives returns up to most studies behind a UID, in the order of their UIDs: those in a state, or all where that is empty.
	Lives(ctx context.Context, state pipeline.State, after string, most int) ([]pipeline.Life, error)
	// Changes returns the steps of a study's life, the first one first.
	Changes(ctx context.Context, studyUID string) ([]pipeline.Change, error)
	// Retry takes a study up again that has failed or was refused; pipeline.ErrConflict where it has not.
	Retry(ctx context.Context, studyUID string) error
}

// maxLives is how many studies one answer lists at most.
const maxLives = 1000

// readings answers GET readings: where studies stand, page by page.
func (s *server) readings(c *gin.Context) error {
	most := maxLives
	if q := c.Query("limit"); q != "" {
		n, err := strconv.Atoi(q)
		if err != nil || n < 1 {
			return fmt.Errorf("%w: limit is not a number above 0", pipeline.ErrInvalid)
		}
		most = min(n, maxLives)
	}
	state := pipeline.State(c.Query("state"))
	if state != "" && !slices.Contains(pipeline.States, state) {
		return fmt.Errorf("%w: state is not one of %v", pipeline.ErrInvalid, pipeline.States)
	}
	after := c.Query("after")
	if after != "" && !pipeline.ValidUID(after) {
		return fmt.Errorf("%w: after is not a UID", pipeline.ErrInvalid)
	}
	lives, err := s.Readings.Lives(c.Request.Context(), state, after, most)
	if err != nil {
		return err
	}
	answer := gin.H{"studies": append([]pipeline.Life{}, lives...)}
	if len(lives) == most {
		answer["next"] = lives[most-1].StudyInstanceUID // as after, for the next page
	}
	c.JSON(http.StatusOK, answer)
	return nil
}

// timeline answers GET {study}/reading/timeline with the steps of the study's life.
func (s *server) timeline(c *gin.Context) error {
	study, _, _, err := pathUIDs(c)
	if err != nil {
		return err
	}
	st, err := s.Readings.Status(c.Request.Context(), study)
	if err != nil {
		return err
	}
	steps, err := s.Readings.Changes(c.Request.Context(), study)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, gin.H{"study_instance_uid": study, "state": st.State, "steps": append([]pipeline.Change{}, steps...)})
	return nil
}

// retry answers POST {study}/reading/retry.
func (s *server) retry(c *gin.Context) error {
	study, _, _, err := pathUIDs(c)
	if err != nil {
		return err
	}
	if err := s.Readings.Retry(c.Request.Context(), study); err != nil {
		return err
	}
	c.JSON(http.StatusAccepted, gin.H{"study_instance_uid": study, "state": pipeline.StateReceiving})
	return nil
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
