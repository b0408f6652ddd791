"""The route that finds messages by any name that somebody has."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from monitor.web.api.dependencies import BEARER, DatabaseDep, error_responses
from monitor.web.api.message_pages import filters_of, message_page
from monitor.web.api.pagination import CursorError
from monitor.web.api.requests import MessageFilters
from monitor.web.api.schemas import FoundMessage, FoundScore, MessagePage
from storage.queries.search import Found

router = APIRouter(dependencies=[BEARER])


@router.get("/messages", tags=["messages"], summary="Find messages", responses=error_responses())
def find_messages(database: DatabaseDep, query: Annotated[MessageFilters, Query()]) -> MessagePage:
    """By id, user, tenant, conversation, time, status, probe or score; the latest first. Without text."""
    asked = query.model_dump(mode="json", exclude_none=True, exclude={"limit", "cursor"})
    given = {name: str(value) for name, value in asked.items()}
    for name, value in given.items():
        if not value.strip():
            raise _invalid(name, "is empty; write what it is to match, or leave it out")
    try:
        filters = filters_of(given)
        with database.read_only() as connection:
            found, cursor = message_page(connection, filters, query.limit, query.cursor, given=given)
    except CursorError as error:
        raise _invalid("cursor", str(error).removeprefix("cursor: ")) from None
    except ValueError as error:
        name, _, problem = str(error).partition(": ")
        raise _invalid(name, problem) from None
    return MessagePage(messages=[_found(each) for each in found], next=cursor)


def _invalid(name: str, problem: str) -> RequestValidationError:
    return RequestValidationError([{"type": "value_error", "loc": ("query", name), "msg": problem}])


def _found(each: Found) -> FoundMessage:
    row = each.message
    fields = {name: row[name] for name in FoundMessage.model_fields if name in row}
    return FoundMessage(**fields, scores=[FoundScore(**score) for score in each.scores])
