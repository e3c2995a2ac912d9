from django.contrib.auth.decorators import login_required
from django.forms import modelform_factory
from django.http import JsonResponse
from django.shortcuts import redirect, render

from .models import Note

NoteForm = modelform_factory(Note, fields=["text", "attachment"])


def home(request):
    return render(request, "notes/home.html")


@login_required
def notes(request):
    form = NoteForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        form.instance.author = request.user
        form.save()
        return redirect("notes")
    return render(request, "notes/notes.html", {"form": form, "notes": Note.objects.filter(author=request.user)})


def api_request(request):
    return JsonResponse(
        {
            "client": request.META["REMOTE_ADDR"],
            "scheme": request.scheme,
            "host": request.get_host(),
            "url": request.build_absolute_uri(),
            "secure": request.is_secure(),
            "request_id": request.headers.get("X-Request-Id"),
        }
    )


def boom(request):
    raise RuntimeError("this page fails on purpose: its traceback is in the terminal")
